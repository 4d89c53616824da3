//! Log lines on their way to standard error. A collector that has stopped to read stops whoever writes, so that one
//! thread does nothing else: everybody else puts lines into a queue, and waits for nothing.
//!
//! tracing-appender has such a queue, too. It counts lines and not bytes, and tells of its own trouble by a `println!`,
//! into what may be stuck.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait; some hundred lines. What comes then is dropped, and counted.
const WAITING_MAX: usize = 256 << 10;

/// Longest wait at the end for what is in the queue.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The near end of the queue. Clones are of the same one.
#[derive(Clone)]
pub struct LineQueue {
    lines: Sender<Message>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    /// Everything before this is written.
    Written(SyncSender<()>),
}

impl LineQueue {
    /// A queue to a writer, and the thread that empties it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn to(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, taken) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let queue = Self { lines, waiting: Arc::clone(&waiting), dropped: Arc::default() };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&taken, &waiting, writer))?;
        Ok(queue)
    }

    /// How many lines were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until everything is written, or for so long as it can be.
    pub(super) fn flush(&self) {
        let (written, wait) = sync_channel(1);
        if self.lines.send(Message::Written(written)).is_ok() {
            let _ = wait.recv_timeout(LAST_WAIT);
        }
    }
}

fn write(taken: &Receiver<Message>, waiting: &AtomicUsize, mut writer: impl Write) {
    for message in taken {
        match message {
            Message::Line(line) => {
                // A closed standard error must not end the gate.
                let _ = writer.write_all(&line);
                waiting.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Message::Written(told) => {
                let _ = writer.flush();
                let _ = told.try_send(());
            }
        }
    }
}

/// Each write is one line.
impl Write for &LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let before = self.waiting.fetch_add(line.len(), Ordering::Relaxed);
        if before + line.len() > WAITING_MAX || self.lines.send(Message::Line(line.to_vec())).is_err() {
            self.waiting.fetch_sub(line.len(), Ordering::Relaxed);
            self.drop_line();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Mutex;

    use super::*;

    /// A writer that waits for a word before each line.
    struct Stuck(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_is_stuck_holds_up_nobody_and_what_does_not_fit_is_counted() {
        let (go_on, wait) = channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let queue = LineQueue::to(Stuck(wait, Arc::clone(&written))).unwrap();
        let line = [b'x'; 1024];
        for _ in 0..1000 {
            (&queue).write_all(&line).unwrap();
        }
        let kept = (WAITING_MAX / line.len()) as u64;
        assert_eq!(queue.dropped(), 1000 - kept);
        // Once it is read again, what was kept is written, and there is room again.
        drop(go_on);
        queue.flush();
        assert_eq!(written.lock().unwrap().len(), WAITING_MAX);
        (&queue).write_all(b"more").unwrap();
        queue.flush();
        assert_eq!((queue.dropped(), written.lock().unwrap().len()), (1000 - kept, WAITING_MAX + 4));
    }
}
