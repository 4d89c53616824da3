//! Tables for people: with nothing drawn between the cells.

use tabled::builder::Builder;
use tabled::settings::peaker::PriorityMax;
use tabled::settings::{Padding, Style, Width};

use super::paint::{Tone, paint};

/// Between two columns.
const GAP: usize = 2;

/// Rows below their headings.
pub(crate) struct Table(Builder);

impl Table {
    /// One with nothing but headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let mut builder = Builder::new();
        builder.push_record(headings.iter().map(|heading| paint(Tone::Faint, heading)));
        Self(builder)
    }

    /// One more row.
    pub(crate) fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.push_record(cells);
    }

    /// Its lines, in so many columns if that is told.
    pub(crate) fn text(self, columns: Option<usize>) -> String {
        let mut table = self.0.build();
        table.with(Style::empty()).with(Padding::new(0, GAP, 0, 0));
        if let Some(columns) = columns {
            // The padding of the last column is cut below.
            table.with(Width::wrap(columns + GAP).priority(PriorityMax::right()).keep_words(true));
        }
        table.to_string().lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }
}
