//! What happens while slots move: a bar on a terminal, else a line now and then, or JSON.

use std::{
    io::{IsTerminal as _, Write as _, stderr},
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;

use crate::{
    clock,
    fleet::{Event, Trouble, What},
    tools::say,
};

/// Between two lines that say how far it is.
const LINE_EVERY: Duration = Duration::from_secs(1);
const BAR_WIDTH: usize = 30;

/// Says how far it is.
pub(super) struct Progress {
    total: usize,
    moved: usize,
    left_out: usize,
    under_way: usize,
    began: Instant,
    said: Option<Instant>,
    json: bool,
    bar: bool,
}

impl Progress {
    pub(super) fn new(total: usize, json: bool) -> Self {
        Self {
            total,
            moved: 0,
            left_out: 0,
            under_way: 0,
            began: clock::now(),
            said: None,
            json,
            bar: !json && stderr().is_terminal(),
        }
    }

    pub(super) fn left_out(&mut self, slots: usize) {
        self.left_out += slots;
    }

    pub(super) fn tell(&mut self, event: &Event) {
        let (from, to) = (event.from.to_string(), event.to.to_string());
        match &event.what {
            What::Began => self.under_way += 1,
            What::Moved(slots, took) => {
                self.under_way = self.under_way.saturating_sub(1);
                self.moved += slots;
                self.left_out += event.slots.saturating_sub(*slots);
                if self.json {
                    line(&json!({
                        "event": "moved", "from": from, "to": to, "slots": slots,
                        "keys": event.keys, "took_ms": took.as_millis(),
                        "done": self.moved, "of": self.total,
                    }));
                }
            }
            What::Failed(trouble) => {
                self.under_way = self.under_way.saturating_sub(1);
                self.clear();
                let slots = event.slots;
                note_as(
                    self.json,
                    "failed",
                    &format!("{from} -> {to}, {slots} slots: {trouble}"),
                );
            }
        }
        self.draw();
    }

    fn draw(&mut self) {
        let now = clock::now();
        if self.bar {
            let filled = (BAR_WIDTH * self.moved)
                .checked_div(self.total)
                .unwrap_or(0)
                .min(BAR_WIDTH);
            let _ = write!(
                stderr().lock(),
                "\r\x1b[2K[{}{}] {}",
                "#".repeat(filled),
                ".".repeat(BAR_WIDTH - filled),
                self.figures()
            );
        } else if !self.json && self.said.is_none_or(|said| now - said >= LINE_EVERY) {
            self.said = Some(now);
            eprintln!("{}", self.figures());
        }
    }

    fn figures(&self) -> String {
        format!(
            "{} of {} slots, {} moves under way, {:.0} s",
            self.moved,
            self.total,
            self.under_way,
            self.began.elapsed().as_secs_f64()
        )
    }

    fn clear(&self) {
        if self.bar {
            let _ = write!(stderr().lock(), "\r\x1b[2K");
        }
    }

    /// The last word.
    pub(super) fn end(&self) {
        self.clear();
        let seconds = self.began.elapsed().as_secs_f64();
        if self.json {
            line(&json!({
                "event": "end", "done": self.moved, "of": self.total, "left_out": self.left_out,
                "took_ms": self.began.elapsed().as_millis(),
            }));
        } else {
            let left_out = match self.left_out {
                0 => String::new(),
                slots => format!("; {slots} had another owner by then and were left out"),
            };
            say(&format!(
                "{} of {} slots moved in {seconds:.1} s{left_out}\n",
                self.moved, self.total
            ));
        }
    }

    /// Says that a signal ended it.
    pub(super) fn stopped(&self) {
        self.clear();
        note(
            self.json,
            "stopped: no slot is left half moved; run it again to go on",
        );
    }

    /// Why it ended before it was done, and what to do.
    pub(super) fn given_up(&self, trouble: &Trouble) -> String {
        self.clear();
        format!(
            "ended after {} of {} slots: {trouble}\nrun it again when the cluster is well: what was left \
             half done is finished first",
            self.moved, self.total
        )
    }
}

/// Something to know, beside what may be a bar.
pub(super) fn interrupted(json: bool, text: &str) {
    if !json && stderr().is_terminal() {
        eprintln!(); // behind the bar and the terminal's ^C
    }
    note(json, text);
}

/// Something to know.
pub(super) fn note(json: bool, text: &str) {
    note_as(json, "note", text);
}

fn note_as(json: bool, event: &str, text: &str) {
    if json {
        line(&json!({ "event": event, "text": text }));
    } else {
        eprintln!("{text}");
    }
}

/// One line of JSON.
pub(super) fn line(answer: &impl Serialize) {
    match serde_json::to_string(answer) {
        Ok(text) => say(&(text + "\n")),
        Err(error) => eprintln!("{error}"),
    }
}
