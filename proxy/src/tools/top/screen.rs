//! The screen: looked at each second, drawn, ended by `q`.

use std::{
    io,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::{Admin, EVERY, Failure, Seen, draw, page};

/// Keys are looked for this often.
const KEYS_EVERY: Duration = Duration::from_millis(50);

/// Shows until `q`, or so many seconds.
pub(super) async fn show(admin: &Admin, count: Option<u64>) -> Result<(), Failure> {
    let mut seen = Seen::default();
    look(admin, &mut seen).await;
    if let Some(text) = seen.trouble.take() {
        return Err(Failure::Failed(text));
    }
    let mut terminal = ratatui::init();
    let ended = follow(admin, count, &mut seen, &mut terminal).await;
    ratatui::restore();
    ended.map_err(|error| Failure::Failed(format!("the terminal: {error}")))
}

async fn follow(
    admin: &Admin,
    count: Option<u64>,
    seen: &mut Seen,
    terminal: &mut ratatui::DefaultTerminal,
) -> io::Result<()> {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut looks = 0;
    while count.is_none_or(|count| looks < count) {
        let next = Instant::now() + EVERY;
        terminal.draw(|frame| draw::screen(frame, seen, colours))?;
        while Instant::now() < next {
            if event::poll(KEYS_EVERY)? {
                match event::read()? {
                    Event::Key(key) if key.kind == KeyEventKind::Press && ends(key) => {
                        return Ok(());
                    }
                    Event::Resize(..) => {
                        terminal.draw(|frame| draw::screen(frame, seen, colours))?;
                    }
                    _ => {}
                }
            }
        }
        look(admin, seen).await;
        looks += 1;
    }
    Ok(())
}

fn ends(key: event::KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        KeyCode::Char('c') => control,
        _ => false,
    }
}

/// What cannot be looked at now stays as it was, and the screen says so.
async fn look(admin: &Admin, seen: &mut Seen) {
    seen.trouble = None;
    match page(admin, "/status").await {
        Ok(status) => seen.status = status,
        Err(text) => seen.trouble = Some(text),
    }
    match page(admin, "/topology").await {
        Ok(topology) => seen.topology = topology,
        Err(text) => seen.trouble = Some(text),
    }
}
