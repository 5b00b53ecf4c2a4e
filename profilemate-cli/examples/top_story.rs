//! The live view on a made-up server, in a real terminal: `cargo run --example top_story`. The tests drive it by tmux.

#[path = "../tests/top/story.rs"]
mod story;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use profilemate::view::top::draw::Theme;
use profilemate::view::top::screen;

fn main() -> std::io::Result<()> {
    let theme = Theme {
        colour: std::env::var_os("NO_COLOR").is_none(),
        unicode: false,
    };
    screen::show(
        &story::told(),
        &AtomicBool::new(false),
        Duration::from_millis(100),
        theme,
    )
}
