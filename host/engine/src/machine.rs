//! What this machine calls itself.

use std::fs;
use std::path::Path;

/// The processor's name as the operating system gives it, or its architecture.
#[must_use]
pub fn processor_name() -> String {
    // Linux alone offers the name as a file; elsewhere the architecture has to do.
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), str::to_owned)
}

/// Main memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemorySize {
    /// All there is.
    pub total: u64,
    /// What programs can have without the system swapping.
    pub available: u64,
}

/// The main memory, where the system tells (Linux).
#[must_use]
pub fn memory() -> Option<MemorySize> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB"))?;
        value.trim().parse::<u64>().ok().map(|kib| kib << 10)
    };
    Some(MemorySize { total: field("MemTotal:")?, available: field("MemAvailable:")? })
}

/// What the process's control group may have, where it has a limit (Linux, cgroups v2 as a container sees its own).
#[must_use]
pub fn allowed_memory() -> Option<MemorySize> {
    let number =
        |file: &str| fs::read_to_string(Path::new("/sys/fs/cgroup").join(file)).ok()?.trim().parse::<u64>().ok();
    // Without a limit the file holds a word.
    let (total, current) = (number("memory.max")?, number("memory.current")?);
    // Pages of files that are merely cached can be had at once.
    let stat = fs::read_to_string("/sys/fs/cgroup/memory.stat").unwrap_or_default();
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    Some(MemorySize { total, available: total.saturating_sub(current.saturating_sub(cached.unwrap_or(0))) })
}

/// Bytes that this user may still write to the file system of a folder, where the system tells (Unix).
#[must_use]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let space = rustix::fs::statvfs(folder).ok()?;
        Some(space.f_bavail.saturating_mul(space.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}
