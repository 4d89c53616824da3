//! Runs that need a rate: what the machine did not reach says nothing, and is done again.

use anyhow::{Result, bail};

/// How often a run is done before the machine is given up.
const RUNS: usize = 4;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paced {
    /// It was fast enough, and all that is promised held.
    Shown,
    /// Neither passed nor failed: what was reached, and what is needed.
    TooSlow(String),
}

impl Paced {
    /// Whether so much a second is enough.
    pub fn by_rate(what: &str, reached: f64, needed: f64) -> Self {
        if reached >= needed {
            return Self::Shown;
        }
        Self::TooSlow(format!("{reached:.0} {what} a second, of {needed:.0} that are needed"))
    }
}

/// Repeats a run until it shows something. A machine on which it never does is told from a promise that does not hold.
pub async fn until_shown(name: &str, mut run: impl AsyncFnMut() -> Result<Paced>) -> Result<()> {
    for _ in 0..RUNS {
        match run().await? {
            Paced::Shown => return Ok(()),
            Paced::TooSlow(why) => eprintln!("{name}: too slow to say anything: {why}; again"),
        }
    }
    bail!("{name}: too slow {RUNS} times: nothing was shown, and nothing was found. Run it again when less is going on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_run_that_is_too_slow_is_done_again_and_neither_passes_nor_fails() -> Result<()> {
        let mut rates = vec![100.0, 4.0, 5.0];
        let run = async || Ok(Paced::by_rate("calls", rates.pop().unwrap_or_default(), 50.0));
        until_shown("calls", run).await?;
        let mut runs = 0;
        let never = until_shown("calls", async || {
            runs += 1;
            Ok(Paced::by_rate("calls", 49.0, 50.0))
        });
        let Err(error) = never.await else { bail!("it passed without having shown anything") };
        assert!(error.to_string().contains("nothing was shown"), "{error}");
        assert_eq!(runs, RUNS);
        Ok(())
    }

    #[tokio::test]
    async fn what_does_not_hold_fails_at_once() {
        let mut runs = 0;
        let failed = until_shown("calls", async || {
            runs += 1;
            bail!("a call was refused")
        });
        assert!(failed.await.is_err());
        assert_eq!(runs, 1);
    }
}
