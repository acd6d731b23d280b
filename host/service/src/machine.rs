//! What this machine calls itself.

use std::fs;

/// The processor's name as the operating system gives it, or its architecture.
#[must_use]
pub fn processor_name() -> String {
    // Linux alone offers the name as a file; elsewhere the architecture has to do.
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), str::to_owned)
}
