//! What ran, how long it took, and whether it was right.

use std::time::Duration;

use serde_json::json;

use crate::config::Settings;
use crate::console::{Align, Failure, Output, Table, duration_text, grouped};

/// One kind of call, repeated.
pub(super) struct Measured {
    /// What ran, for a person.
    pub(super) what: String,
    /// Queries or memories of all calls together.
    pub(super) items: usize,
    /// Rows that each item was compared with; 0 where there are none.
    pub(super) rows: usize,
    /// Time of each call.
    pub(super) times: Vec<Duration>,
    /// The first difference from the reference.
    pub(super) difference: Option<String>,
}

/// Everything measured.
#[derive(Default)]
pub(super) struct Report {
    measured: Vec<Measured>,
    reference: Duration,
}

impl Measured {
    fn total(&self) -> Duration {
        self.times.iter().sum()
    }

    /// The time that `share` of the calls did not exceed (nearest rank).
    fn percentile(&self, share: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        let rank = (share * times.len() as f64).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn items_per_second(&self) -> f64 {
        self.items as f64 / self.total().as_secs_f64().max(1e-9)
    }

    /// Rows compared in a second; where nothing is compared, the items themselves.
    fn rows_per_second(&self) -> f64 {
        self.items_per_second() * self.rows.max(1) as f64
    }
}

impl Report {
    pub(super) fn add(&mut self, measured: Measured) {
        if let Some(difference) = &measured.difference {
            super::say(&format!("NOT EQUAL: {}: {difference}", measured.what));
        }
        self.measured.push(measured);
    }

    pub(super) fn add_reference(&mut self, took: Duration) {
        self.reference += took;
    }

    pub(super) fn is_equal(&self) -> bool {
        !self.measured.is_empty() && self.measured.iter().all(|measured| measured.difference.is_none())
    }

    pub(super) fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        if output.is_json() {
            return self.measured.iter().try_for_each(|measured| output.record(&record(measured)));
        }
        let headings = [
            ("WHAT RAN, THROUGH GRPC", Align::Left),
            ("CALLS", Align::Right),
            ("ITEMS", Align::Right),
            ("TOTAL", Align::Right),
            ("P50", Align::Right),
            ("P95", Align::Right),
            ("P99", Align::Right),
            ("ITEMS/S", Align::Right),
            ("ROWS/S", Align::Right),
            ("EQUAL TO THE REFERENCE", Align::Left),
        ];
        let mut table = Table::new(headings);
        for measured in &self.measured {
            table.row([
                measured.what.clone(),
                grouped(measured.times.len() as u64),
                grouped(measured.items as u64),
                duration_text(measured.total()),
                duration_text(measured.percentile(0.5)),
                duration_text(measured.percentile(0.95)),
                duration_text(measured.percentile(0.99)),
                grouped(measured.items_per_second() as u64),
                rate_text(measured.rows_per_second()),
                if measured.difference.is_none() { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        output.text(table)
    }

    pub(super) fn tell_end(&self, took: Duration, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
        let equal = self.is_equal();
        // As it was started, so that the line can be run where the program is on no PATH.
        let program = std::env::current_exe().map_or_else(|_| "megaring".into(), |path| path.display().to_string());
        let keep = format!("{} serve --data {}", quoted(&program), quoted(&settings.data.display().to_string()));
        let record = json!({
            "equal": equal,
            "reference_seconds": self.reference.as_secs_f64(),
            "seconds": took.as_secs_f64(),
            "keep_running": keep,
        });
        output.answer(&record, || {
            let verdict = if equal {
                "Every answer equals the reference: ids, order, and scores bit for bit; masks and zones; coordinates within 1e-12."
            } else {
                "SOME ANSWERS DIFFER FROM THE REFERENCE; see the messages."
            };
            format!(
                "\n{verdict}\nThe naive reference took {} of the {} in all; none of it is in the table.\n\n\
                 To keep it running: {keep}",
                duration_text(self.reference),
                duration_text(took),
            )
        })?;
        output.flush()
    }
}

fn record(measured: &Measured) -> serde_json::Value {
    json!({
        "what": measured.what,
        "calls": measured.times.len(),
        "items": measured.items,
        "total_seconds": measured.total().as_secs_f64(),
        "p50_seconds": measured.percentile(0.5).as_secs_f64(),
        "p95_seconds": measured.percentile(0.95).as_secs_f64(),
        "p99_seconds": measured.percentile(0.99).as_secs_f64(),
        "items_per_second": measured.items_per_second(),
        "rows_per_second": measured.rows_per_second(),
        "equal": measured.difference.is_none(),
        "difference": measured.difference,
    })
}

fn rate_text(rate: f64) -> String {
    match rate {
        r if r >= 1e9 => format!("{:.2} G", r / 1e9),
        r if r >= 1e6 => format!("{:.1} M", r / 1e6),
        r => grouped(r as u64),
    }
}

/// As a shell takes it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
