//! The report as it grows.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde_json::json;

use super::Output;
use super::check::Group;
use super::line::{Line, tally};
use crate::cli::paint::{self, Tone, paint};

/// Between two states of the spinner.
const TICK: Duration = Duration::from_millis(100);

/// Where it is shown.
pub(super) struct Screen {
    output: Output,
    /// Of a terminal that the text goes to.
    columns: Option<usize>,
    spinner: ProgressBar,
    group: Option<Group>,
    told: Vec<(Option<String>, Vec<Line>)>,
}

impl Screen {
    pub(super) fn new(output: Output) -> Self {
        let columns = paint::columns().filter(|_| output == Output::Text);
        let spinner = ProgressBar::new_spinner();
        if columns.is_none() {
            spinner.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { output, columns, spinner, group: None, told: Vec::new() }
    }

    /// A cluster's report begins. It is named where there are several.
    pub(super) fn begin(&mut self, context: Option<&str>) {
        let first = self.told.is_empty();
        self.group = None;
        self.told.push((context.map(str::to_owned), Vec::new()));
        if let Some(context) = context {
            let gap = if first { "" } else { "\n" };
            self.print(&format!("{gap}{}", paint(Tone::Doubtful, &format!("Context {context}"))));
        }
    }

    /// This is looked at now.
    pub(super) fn looking(&self, group: Group) {
        self.spinner.set_message(group.heading());
        self.spinner.enable_steady_tick(TICK);
    }

    /// Lines of a group. Headings are for terminals: a program takes a line for a link.
    pub(super) fn tell(&mut self, group: Group, lines: Vec<Line>) {
        if self.columns.is_some() && self.group != Some(group) && !lines.is_empty() {
            self.group = Some(group);
            self.print(&format!("\n{}", paint(Tone::Faint, group.heading())));
        }
        for line in &lines {
            self.print(&line.shown(self.columns));
        }
        if let Some((_, told)) = self.told.last_mut() {
            told.extend(lines);
        }
    }

    /// The cluster's report is whole.
    pub(super) fn end(&mut self) {
        self.spinner.finish_and_clear();
        let lines = self.told.last().map_or(&[][..], |(_, lines)| lines);
        let mut text = format!("\n{}", tally(lines));
        if self.columns.is_some() && lines.iter().any(|line| line.next.is_some()) {
            text += &paint(Tone::Faint, "\n`istio-ca-gate explain ID` tells more of a line.");
        }
        self.print(&text);
    }

    /// All reports are whole; the lines of all.
    pub(super) fn finish(self) -> Vec<Line> {
        if self.output == Output::Json {
            let all: Vec<_> = self
                .told
                .iter()
                .map(|(context, lines)| match context {
                    Some(context) => json!({ "context": context, "lines": lines }),
                    None => json!(lines),
                })
                .collect();
            let report = match self.told.as_slice() {
                [(None, lines)] => json!(lines),
                _ => json!(all),
            };
            // Whoever closed standard output does not want to know.
            let _ = writeln!(paint::stdout(), "{report:#}");
        }
        self.told.into_iter().flat_map(|(_, lines)| lines).collect()
    }

    fn print(&self, text: &str) {
        if self.output == Output::Text {
            let write = || -> io::Result<()> { writeln!(paint::stdout(), "{text}") };
            // The same holds here.
            let _ = self.spinner.suspend(write);
        }
    }
}
