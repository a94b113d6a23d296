//! How the front door talks: one line for each step, and a sign of life while a step runs.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::time::{Duration, Instant};

/// Announces a step.
pub(crate) fn step(what: &str) {
    println!("\n{} {what}", bold("==>"));
}

/// A line of a step.
pub(crate) fn note(what: &str) {
    println!("    {what}");
}

/// Something that the reader must not miss.
pub(crate) fn notice(what: &str) {
    println!("{} {what}", bold("  !"));
}

/// The last word of a command that failed.
pub(crate) fn wrong(why: &str) {
    drop(stdout().flush());
    eprintln!("\nxtask: {why}");
}

/// Bold on a terminal, plain elsewhere.
pub(crate) fn bold(text: &str) -> String {
    if stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// Shows that a step is alive: on a terminal a line that counts seconds, elsewhere a line now and then.
pub(crate) struct Pulse {
    what: String,
    began: Instant,
    shown: Option<Duration>,
    turn: usize,
}

impl Pulse {
    /// Begins; shows nothing for the first second.
    pub(crate) fn new(what: &str) -> Self {
        Self { what: what.to_owned(), began: Instant::now(), shown: None, turn: 0 }
    }

    /// Call it often. `part` and `whole` add a percentage.
    pub(crate) fn beat(&mut self, progress: Option<(u64, u64)>) {
        let age = self.began.elapsed();
        let terminal = stdout().is_terminal();
        let gap = if terminal { Duration::from_millis(100) } else { Duration::from_secs(15) };
        if age < self.shown.unwrap_or(Duration::from_secs(1)).max(gap) {
            return;
        }
        self.shown = Some(age + gap);
        let share = match progress {
            Some((part, whole)) if whole > 0 => format!(" {:3} %", part.min(whole) * 100 / whole),
            _ => String::new(),
        };
        let seconds = age.as_secs();
        if terminal {
            let sign = ['|', '/', '-', '\\'].get(self.turn % 4).copied().unwrap_or('|');
            self.turn += 1;
            print!("\r    {sign} {}{share} {seconds} s ", self.what);
            drop(stdout().flush());
        } else {
            println!("    {} …{share} {seconds} s", self.what);
        }
    }

    /// Wipes the moving line and says how long it took, when it took long.
    pub(crate) fn end(&self) {
        if self.shown.is_some() && stdout().is_terminal() {
            print!("\r\x1b[K");
        }
        if self.began.elapsed() > Duration::from_secs(1) {
            note(&format!("{}: {:.1} s", self.what, self.began.elapsed().as_secs_f64()));
        }
        drop(stdout().flush());
        drop(stderr().flush());
    }
}
