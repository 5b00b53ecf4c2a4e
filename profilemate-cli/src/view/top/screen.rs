//! The terminal: draws now and then, and listens to keys.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};

use super::Shared;
use super::draw::{self, Theme};
use super::keys::{Action, Choices};

/// Longest time without a look at whether the session has ended.
const GLANCE: Duration = Duration::from_millis(50);

/// Shows the numbers until `q`, or until `ended`. The terminal is as it was when this returns, and after a panic.
pub fn show(
    shared: &Shared,
    ended: &AtomicBool,
    interval: Duration,
    theme: Theme,
) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let done = watch(&mut terminal, shared, ended, interval, theme);
    ratatui::try_restore()?;
    done
}

fn watch(
    terminal: &mut DefaultTerminal,
    shared: &Shared,
    ended: &AtomicBool,
    interval: Duration,
    theme: Theme,
) -> io::Result<()> {
    let mut choices = Choices::default();
    let mut view = shared.view();
    let mut drawn: Option<Instant> = None;
    while !ended.load(Ordering::Relaxed) {
        if drawn.is_none_or(|drawn| drawn.elapsed() >= interval) {
            if !choices.paused {
                view = shared.view();
            }
            terminal.draw(|frame| draw::draw(frame, &view, &choices, theme))?;
            drawn = Some(Instant::now());
        }
        if !event::poll(GLANCE)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) => match choices.key(key, choices.lines(&view)) {
                Action::Quit => return Ok(()),
                Action::Reset => {
                    shared.reset();
                    view = shared.view();
                }
                Action::None => {}
            },
            Event::Resize(..) => {}
            _ => continue,
        }
        drawn = None;
    }
    Ok(())
}
