//! An entry for a terminal.

use pulldown_cmark::{Event, Tag, TagEnd};
use textwrap::Options;

use super::{Explanation, Leads, leads};

/// Before commands and rows.
const INDENT: &str = "    ";

/// The entry in lines of at most so many columns; commands stay whole, to be copied.
pub fn text(entry: &Explanation, columns: usize) -> String {
    let mut out = Text { columns, ..Text::default() };
    for event in entry.parsed() {
        out.take(event);
    }
    out.blocks.join("\n\n")
}

#[derive(Default)]
struct Text {
    columns: usize,
    blocks: Vec<String>,
    words: String,
    rows: Vec<String>,
    in_code: bool,
    links: Vec<String>,
}

impl Text {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(Tag::CodeBlock(_)) => self.in_code = true,
            Event::Start(Tag::Link { dest_url, .. }) => self.links.push(dest_url.into_string()),
            Event::End(TagEnd::Link) => self.end_link(),
            Event::Text(text) => self.words.push_str(&text),
            Event::Code(code) => self.words.push_str(&format!("`{code}`")),
            Event::SoftBreak | Event::HardBreak => self.words.push(' '),
            Event::End(TagEnd::CodeBlock) => self.end_code(),
            Event::End(TagEnd::Paragraph | TagEnd::Item) => self.end_paragraph(),
            Event::End(TagEnd::TableCell) => self.words.push_str(": "),
            // The columns' names say no more than the rows do.
            Event::End(TagEnd::TableHead) => self.words.clear(),
            Event::End(TagEnd::TableRow) => self.end_row(),
            Event::End(TagEnd::Table) => self.blocks.push(std::mem::take(&mut self.rows).join("\n")),
            _ => {}
        }
    }

    fn end_link(&mut self) {
        match self.links.pop().as_deref().map(leads) {
            Some(Leads::Docs(file)) => self.words.push_str(&format!(" ({file})")),
            Some(Leads::To(_) | Leads::Out) | None => {}
        }
    }

    fn end_code(&mut self) {
        self.in_code = false;
        let lines: Vec<_> = self.words.trim_end().lines().map(|line| format!("{INDENT}{line}")).collect();
        self.words.clear();
        self.blocks.push(lines.join("\n"));
    }

    fn end_paragraph(&mut self) {
        let words = std::mem::take(&mut self.words);
        if !words.trim().is_empty() {
            self.blocks.push(textwrap::fill(words.trim(), Options::new(self.columns).break_words(false)));
        }
    }

    fn end_row(&mut self) {
        let row = std::mem::take(&mut self.words);
        let options = Options::new(self.columns).break_words(false).initial_indent(INDENT).subsequent_indent("      ");
        self.rows.push(textwrap::fill(row.trim_end_matches(": "), options));
    }
}
