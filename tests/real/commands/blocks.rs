//! The blocks of commands in the documents, and their commands one by one.

use std::path::Path;

use anyhow::Result;
use tokio::process::Command;

/// A block of a document.
pub struct Block {
    /// Page and section.
    pub place: String,
    pub text: String,
}

/// The blocks of these pages, in their order.
pub fn blocks(pages: &[impl AsRef<str>]) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for page in pages {
        let page = page.as_ref();
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page))?;
        let (mut section, mut open): (&str, Option<Block>) = ("", None);
        let mut is_other = false;
        for line in text.lines() {
            if let Some(language) = line.trim_start().strip_prefix("```") {
                if let Some(block) = open.take() {
                    blocks.push(block);
                } else if language == "sh" {
                    open = Some(Block { place: format!("{page}, {section}"), text: String::new() });
                } else {
                    is_other = !is_other;
                }
            } else if let Some(block) = open.as_mut() {
                block.text.push_str(line);
                block.text.push('\n');
            } else if !is_other && line.starts_with('#') {
                section = line.trim_start_matches(['#', ' ']);
            }
        }
    }
    Ok(blocks)
}

/// The commands of a block: each ends where a shell takes it for whole.
pub async fn commands(text: &str) -> Result<Vec<String>> {
    let (mut commands, mut command) = (Vec::new(), String::new());
    for line in text.lines() {
        command.push_str(line);
        command.push('\n');
        let is_whole = Command::new("bash").args(["-n", "-c", &command]).output().await?;
        if is_whole.status.success() && is_whole.stderr.is_empty() && !line.ends_with('\\') {
            commands.push(std::mem::take(&mut command));
        }
    }
    anyhow::ensure!(command.is_empty(), "not a command: {command}");
    Ok(commands)
}
