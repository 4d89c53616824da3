//! The Go program of `judge`, asked by whoever needs it.

use std::cell::RefCell;

use anyhow::Result;
use judge::consumers::Go;

thread_local! {
    static GO: RefCell<Option<Go>> = const { RefCell::new(None) };
}

/// Asks it. Without an answer nothing can be said of the program, so that this is the end.
pub(crate) fn by_go<T>(ask: impl FnOnce(&mut Go) -> Result<T>) -> T {
    let answer = GO.with_borrow_mut(|go| {
        let go = match go {
            Some(go) => go,
            None => go.insert(Go::start()?),
        };
        ask(go)
    });
    match answer {
        Ok(answer) => answer,
        Err(error) => {
            assert!(error.is::<std::convert::Infallible>(), "the judge in Go does not answer: {error:#}");
            std::process::abort()
        }
    }
}
