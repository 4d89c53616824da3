//! Tells on a terminal what happens, why, and how long it took: with colours and a spinner where there is one to see
//! them, else in plain lines.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use console::{Term, style};
use indicatif::{ProgressBar, ProgressStyle};

/// No line is longer.
const WIDTH: usize = 110;

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
        for line in textwrap::wrap(&words, WIDTH - indent.len()) {
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
        let seconds = style(format!("{:.2} s", took.as_secs_f64())).dim();
        self.line(&format!("{INDENT}{mark} {what}  {seconds}"));
        done.map(|done| (done, took)).with_context(|| format!("not as told: {what}"))
    }

    fn spinner(&self, what: &str) -> Option<ProgressBar> {
        let style = ProgressStyle::with_template(&format!("{INDENT}{{spinner:.cyan}} {{msg}}  {{elapsed}}")).ok()?;
        let spinner = self.out.is_term().then(ProgressBar::new_spinner)?;
        spinner.set_style(style);
        spinner.set_message(what.to_owned());
        spinner.enable_steady_tick(SPIN);
        Some(spinner)
    }
}
