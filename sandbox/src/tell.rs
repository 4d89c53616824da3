//! Tells on a terminal what happens, why, and how long it took: with colours and a spinner where there is one to see
//! them, else in plain lines.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use console::{Term, style};
use indicatif::{ProgressBar, ProgressStyle};
use textwrap::{Options, WordSplitter};

/// No line is longer, however wide the terminal is.
const WIDTH: usize = 110;

/// Half a fingerprint stands on a line where not all of it fits: 16 bytes.
const HALF: usize = 48;

/// On a narrower terminal, lines are broken by the terminal.
const WIDTH_MIN: usize = 40;

/// Room for the name of a cluster.
const NAME: usize = 8;

/// What a chapter tells stands behind its title.
const INDENT: &str = "   ";

/// What others say stands behind that.
const QUOTE: &str = "       ";

/// Between two pictures of the spinner.
const SPIN: Duration = Duration::from_millis(80);

/// The one who tells.
#[derive(Debug)]
pub struct Teller {
    out: Term,
    chapters: std::cell::Cell<usize>,
}

impl Default for Teller {
    fn default() -> Self {
        Self { out: Term::stdout(), chapters: std::cell::Cell::new(0) }
    }
}

impl Teller {
    /// A line as it is.
    pub fn line(&self, line: &str) {
        // Nobody is left to be told that nobody listens.
        let _ = self.out.write_line(line);
    }

    /// A cluster's fingerprint. Two of them can be compared by eye: they break at the same place.
    pub fn fingerprint(&self, cluster: &str, text: &str) {
        if text.len() + NAME + INDENT.len() <= self.width() {
            return self.line(&format!("{INDENT}{cluster:NAME$}{text}"));
        }
        let (first, rest) = text.split_at_checked(HALF).unwrap_or((text, ""));
        self.line(&format!("{INDENT}{cluster:NAME$}{first}"));
        self.line(&format!("{INDENT}{:NAME$}{rest}", ""));
    }

    fn width(&self) -> usize {
        self.out.size_checked().map_or(WIDTH, |(_, columns)| usize::from(columns).clamp(WIDTH_MIN, WIDTH))
    }

    /// The next chapter.
    pub fn chapter(&self, title: &str) {
        self.chapters.set(self.chapters.get() + 1);
        let title = format!("{}  {title}", self.chapters.get());
        self.line(&format!("\n{}", style(title).bold().cyan()));
    }

    /// Why something is done, or what it means.
    pub fn say(&self, text: &str) {
        self.wrapped(text, INDENT, |line| line.to_owned());
    }

    /// What others say.
    pub fn quote(&self, text: &str) {
        self.wrapped(text, QUOTE, |line| style(line).dim().to_string());
    }

    fn wrapped(&self, text: &str, indent: &str, dress: impl Fn(&str) -> String) {
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // Dates and names of flags are not broken.
        let options = Options::new(self.width() - indent.len()).word_splitter(WordSplitter::NoHyphenation);
        for line in textwrap::wrap(&words, options) {
            self.line(&format!("{indent}{}", dress(&line)));
        }
    }

    /// Does something, and tells what, whether it went so, and how long it took.
    ///
    /// # Errors
    /// That of what was done.
    pub async fn step<T>(&self, what: &str, doing: impl Future<Output = Result<T>>) -> Result<T> {
        self.timed(what, doing).await.map(|(done, _)| done)
    }

    /// The same, and returns how long it took.
    ///
    /// # Errors
    /// That of what was done.
    pub async fn timed<T>(&self, what: &str, doing: impl Future<Output = Result<T>>) -> Result<(T, Duration)> {
        let spinner = self.spinner(what);
        let began = Instant::now();
        let done = doing.await;
        let took = began.elapsed();
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let mark = if done.is_ok() { style("✓").green() } else { style("✗").red().bold() };
        // Its blank is none to break a line at.
        let seconds = style(format!("{:.2}\u{a0}s", took.as_secs_f64())).dim();
        let text = format!("{mark} {what}  {seconds}");
        let options = Options::new(self.width()).initial_indent(INDENT).subsequent_indent("     ");
        let options = options.word_splitter(WordSplitter::NoHyphenation);
        textwrap::wrap(&text, options).iter().for_each(|line| self.line(line));
        done.map(|done| (done, took)).with_context(|| format!("not as told: {what}"))
    }

    fn spinner(&self, what: &str) -> Option<ProgressBar> {
        // A message that is too wide is cut: the line is drawn anew, which does not do with two.
        let style =
            ProgressStyle::with_template(&format!("{INDENT}{{spinner:.cyan}} {{wide_msg}} {{elapsed}}")).ok()?;
        let spinner = self.out.is_term().then(ProgressBar::new_spinner)?;
        spinner.set_style(style);
        spinner.set_message(what.to_owned());
        spinner.enable_steady_tick(SPIN);
        Some(spinner)
    }
}
