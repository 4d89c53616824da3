//! Colours, on terminals alone.

use anstream::{AutoStream, stdout as auto};
use anstyle::{AnsiColor, Style};

/// Standard output. Colours are left out where it is not a terminal, or `NO_COLOR` is set.
pub(crate) fn stdout() -> AutoStream<std::io::Stdout> {
    auto()
}

/// How wide the terminal is that standard output goes to, if it goes to one.
pub(crate) fn columns() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// How a word is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Doubtful,
    /// Not as it should be.
    Bad,
    /// Beside the point.
    Faint,
}

/// The text in the colour of its meaning.
pub(crate) fn paint(tone: Tone, text: &str) -> String {
    let style = match tone {
        Tone::Good => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Tone::Doubtful => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Tone::Bad => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Tone::Faint => Style::new().dimmed(),
    };
    format!("{style}{text}{style:#}")
}
