//! `megaring demo`: the whole path on real and generated data, through gRPC, each answer compared with the naive
//! reference.
//!
//! It imports two corpora into the data folder (anew where they are there already), starts a server on a free port of
//! the loopback interface and talks to it as any client would. Answers are checked in full: rows, ids, order and
//! float32 scores bit for bit, masks and zones exactly, coordinates within 1e-12. The reference's time is measured
//! apart and is no part of any number in the table. At the end it shows what stands around the work: the gate, budgets,
//! the board and the ledger.

use std::time::Instant;

use megaring_corpus::Access;

use crate::config::Settings;
use crate::console::{Failure, Output};

mod client;
mod data;
mod examples;
mod expected;
mod gate;
mod host;
mod report;
mod work;

use self::client::Client;
use self::data::Inputs;
use self::host::Host;
use self::report::Report;

/// Runs the demo.
///
/// # Errors
/// [`Failure::Told`] where an answer differs from the reference; data folder, server or client trouble in words.
pub fn run(settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let begun = Instant::now();
    let store = settings.store(Access::Exclusive)?;
    let inputs = Inputs::make(&store)?;
    let host = Host::start(settings, store)?;
    let measured = measure(&inputs, &host, settings, output);
    host.stop()?;
    let report = measured?;
    report.tell(output)?;
    report.tell_end(begun.elapsed(), settings, output)?;
    if report.is_equal() { Ok(()) } else { Err(Failure::Told) }
}

fn measure(inputs: &Inputs, host: &Host, settings: &Settings, output: &mut Output) -> Result<Report, Failure> {
    let mut client = Client::connect(host, settings.message_limit)?;
    let mut report = Report::default();
    say("searching the generated corpus");
    work::generated(&inputs.generated, &mut client, &mut report)?;
    say("searching the real sample");
    let answers = work::real(&inputs.real, &mut client, &mut report)?;
    say("encoding memories");
    work::memories(&inputs.memories, &mut client, &mut report)?;
    examples::tell(&inputs.real, &answers, output)?;
    gate::tell(inputs.real.name, inputs.real.rows.dim, host, output)?;
    Ok(report)
}

/// A message about what happens now.
fn say(text: &str) {
    crate::console::message(&format!("demo: {text}"));
}
