//! What values of settings look like, in words for the command line where they do not.

use std::net::SocketAddr;
use std::time::Duration;

use megaring_core::gate::COUNTERS;
use megaring_simd::gate::{Rate, Rule};
use tracing_subscriber::EnvFilter;

/// What the address of a Unix socket begins with.
pub(crate) const UNIX: &str = "unix:";
/// What the address of a server that encrypts begins with.
pub(crate) const HTTPS: &str = "https://";

/// A number of bytes: digits, and perhaps a unit: B, KiB, MiB, GiB (powers of 1024), KB, MB, GB (powers of 1000).
///
/// # Errors
/// In words, for the command line.
pub fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let each: usize = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err(format!("{unit:?} is no unit of bytes: use KiB, MiB, GiB, KB, MB, GB or none")),
    };
    let number: usize = number.parse().map_err(|_| "a size is a whole number, such as 64MiB".to_owned())?;
    number.checked_mul(each).filter(|bytes| *bytes > 0).ok_or_else(|| "the size must be above 0 and fit memory".into())
}

/// A duration: digits and a unit: us, ms, s (also without a unit), m.
///
/// # Errors
/// In words, for the command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_| "a time is a whole number, such as 10s or 500ms".to_owned())?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        _ => Err(format!("{unit:?} is no unit of time: use us, ms, s or m")),
    }
}

/// The kind of calls, and how often they may come.
pub(super) fn rate(text: &str) -> Result<(String, Rate), String> {
    let (kind, rate) = text.split_once('=').ok_or("it is KIND=RATE, such as search=100")?;
    let known = || format!("no calls are counted as {kind:?}; there are {}", COUNTERS.join(", "));
    let kind = COUNTERS.iter().find(|counter| **counter == kind.trim()).ok_or_else(known)?;
    Ok(((*kind).to_owned(), rate.trim().parse()?))
}

/// A rule of the governor.
pub(super) fn rule(text: &str) -> Result<Rule, String> {
    text.trim().parse()
}

/// A host, by name or number, and a port. What the name stands for is asked when it is used.
fn host_and_port(text: &str) -> Result<String, String> {
    let named = |(host, port): (&str, &str)| !host.is_empty() && !host.contains(':') && port.parse::<u16>().is_ok();
    if text.parse::<SocketAddr>().is_ok() || text.rsplit_once(':').is_some_and(named) {
        return Ok(text.to_owned());
    }
    Err("an address is a host and a port, such as localhost:7272, 127.0.0.1:7272 or [::1]:7272".into())
}

/// Where a server listens: on the network, or on a Unix socket.
pub(super) fn listen(text: &str) -> Result<String, String> {
    match text.strip_prefix(UNIX) {
        Some("") => Err("a Unix socket has a path, such as unix:/run/megaring.sock".into()),
        Some(_) => Ok(text.to_owned()),
        None => host_and_port(text),
    }
}

/// A server's address, or nothing.
pub(super) fn server(text: &str) -> Result<String, String> {
    let encrypted = text.strip_prefix(HTTPS);
    let address = encrypted.or(text.strip_prefix("http://")).unwrap_or(text).trim_end_matches('/');
    match encrypted {
        _ if text.trim().is_empty() => Ok(String::new()),
        Some(_) => host_and_port(address).map(|address| format!("{HTTPS}{address}")),
        None => listen(address),
    }
}

/// Permissions, in octal digits.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "permissions are three octal digits, such as 600 or 660".into())
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

pub(super) fn ring_slots(text: &str) -> Result<usize, String> {
    let slots: usize = text.parse().map_err(|_| "a ring has a whole number of slots".to_owned())?;
    if slots.is_power_of_two() { Ok(slots) } else { Err("a ring's slots are a power of two, such as 256".into()) }
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}
