//! A line on stderr, now and then, from whatever takes longer than two seconds.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::print;

/// When the first line comes.
const FIRST: Duration = Duration::from_secs(2);
/// Time between the lines after it.
const NEXT: Duration = Duration::from_secs(5);

/// Tells that something still goes on, until it is dropped.
#[derive(Debug)]
pub(crate) struct Underway {
    end: Option<Sender<()>>,
    teller: Option<JoinHandle<()>>,
}

impl Underway {
    /// `what` is going on: `reading /tmp/x`. Nothing is told if `quiet`.
    pub(crate) fn start(what: String, quiet: bool) -> Self {
        Self::with(what, quiet, FIRST, print::note)
    }

    fn with(
        what: String,
        quiet: bool,
        first: Duration,
        tell: impl Fn(&str) + Send + 'static,
    ) -> Self {
        if quiet {
            return Self {
                end: None,
                teller: None,
            };
        }
        let (end, ended) = mpsc::channel();
        let began = Instant::now();
        let teller = std::thread::Builder::new()
            .name("underway".into())
            .spawn(move || {
                let mut wait = first;
                while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                    let seconds = began.elapsed().as_secs_f64();
                    tell(&format!("{what}: {seconds:.0} s so far"));
                    wait = NEXT;
                }
            });
        Self {
            end: Some(end),
            // Without a thread it goes on, only in silence.
            teller: teller.ok(),
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(teller) = self.teller.take() {
            let _told = teller.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_says_so_and_what_does_not_is_silent() {
        let (told, lines) = mpsc::channel();
        let long = Underway::with("reading x".into(), false, Duration::from_millis(1), {
            let told = told.clone();
            move |line| told.send(line.to_owned()).unwrap()
        });
        assert!(lines.recv().unwrap().starts_with("reading x: "));
        drop(long);
        for quiet in [false, true] {
            let told = told.clone();
            let short = Underway::with("y".into(), quiet, Duration::from_mins(1), move |line| {
                told.send(line.to_owned()).unwrap();
            });
            drop(short);
        }
        drop(told);
        assert_eq!(lines.iter().filter(|line| line.starts_with('y')).count(), 0);
    }
}
