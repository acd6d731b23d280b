//! Progress of long work on stderr: a bar on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::failure::message;
use super::table::{bytes_text, duration_text};

/// How often a plain line is written at most.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// Progress over a number of bytes.
pub(crate) struct Progress {
    what: String,
    total: u64,
    bar: Option<ProgressBar>,
    last: Instant,
}

impl Progress {
    /// Begins; `total` of 0 is unknown.
    pub(crate) fn start(what: String, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(&what, total));
        Self { what, total, bar, last: Instant::now() }
    }

    /// Begins work that writes to stdout meanwhile: a bar would stand between its lines if both went to one terminal.
    pub(crate) fn beside_output(what: String, total: u64) -> Self {
        let shared = std::io::stdout().is_terminal();
        let bar = (std::io::stderr().is_terminal() && !shared).then(|| bar(&what, total));
        Self { what, total, bar, last: Instant::now() }
    }

    /// Tells how far the work is.
    pub(crate) fn at(&mut self, bytes: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(note.to_owned());
        } else if self.last.elapsed() >= PLAIN_EVERY {
            self.last = Instant::now();
            let percent = (bytes * 100).checked_div(self.total);
            let share = percent.map_or_else(|| bytes_text(bytes), |percent| format!("{percent} %"));
            message(&format!("{}: {share}, {note}", self.what));
        }
    }

    /// Ends it with a last word, which stays.
    pub(crate) fn finish(self, note: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        message(&format!("{}: {note}", self.what));
    }
}

impl Drop for Progress {
    /// Leaves no bar behind where the work failed.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Progress over steps that differ: what is left is told by whoever does them.
pub(crate) struct Steps {
    what: &'static str,
    bar: Option<ProgressBar>,
    last: Option<Instant>,
}

impl Steps {
    /// Begins.
    pub(crate) fn start(what: &'static str) -> Self {
        let template = "{prefix} [{bar:30}] {pos}/{len} {msg}";
        let bar = std::io::stderr().is_terminal().then(|| styled(ProgressBar::new(0), template, what));
        Self { what, bar, last: None }
    }

    /// Tells which step is begun, and how long all the rest takes.
    pub(crate) fn at(&mut self, done: usize, steps: usize, note: &str, left: Option<Duration>) {
        let left = left.map(|left| format!(" ({} left)", duration_text(left))).unwrap_or_default();
        if let Some(bar) = &self.bar {
            bar.set_length(steps as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("{note}{left}"));
        } else if self.last.is_none_or(|last| last.elapsed() >= PLAIN_EVERY) {
            self.last = Some(Instant::now());
            message(&format!("{}: {done} of {steps}, {note}{left}", self.what));
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let (bar, template) = if total == 0 {
        (ProgressBar::new_spinner(), "{prefix} {spinner} {bytes} {msg}")
    } else {
        (ProgressBar::new(total), "{prefix} [{bar:30}] {percent} % {msg} ({eta})")
    };
    styled(bar, template, what)
}

fn styled(bar: ProgressBar, template: &str, what: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_prefix(what.to_owned())
}
