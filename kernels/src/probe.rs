//! Whether the CUDA backend can run here, and if not, what is missing and would help: a pure function over what was
//! found.

use std::fmt;

/// Why the CUDA backend cannot run, in plain words, and what would help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unavailable {
    /// What is missing and what would help.
    pub reason: String,
}

impl Unavailable {
    pub(crate) fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string() }
    }
}

/// The oldest driver interface that will do, as `cuDriverGetVersion` numbers it: the kernels are compiled for this one.
pub const OLDEST_DRIVER: i32 = 13_000;
/// The oldest architecture that a compiler of that version compiles for, and that multiplies bytes in its matrix units.
pub const OLDEST_CAPABILITY: (i32, i32) = (7, 5);
/// Less device memory than this holds no corpus worth the way, beside the kernel's own needs.
pub const LEAST_MEMORY: u64 = 1 << 30;

/// What was found on this machine, each as far as it could be looked for.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `std::env::consts::OS`.
    pub os: &'static str,
    /// Why this build has no kernels, as the end of a sentence.
    pub left_out: Option<String>,
    /// `CUDA_LAUNCH_BLOCKING`, if it is set.
    pub launch_blocking: Option<String>,
    /// Whether the driver's library is there.
    pub library: bool,
    /// What is wrong with the library: a missing function, or what the driver answered when it was started.
    pub broken: Option<String>,
    /// As `cuDriverGetVersion` answers; `None` if it was not asked.
    pub driver: Option<i32>,
    /// Devices; `None` if they were not counted.
    pub devices: Option<usize>,
    /// The device wanted.
    pub wanted: usize,
    /// That device; `None` if it was not looked at.
    pub device: Option<DeviceFacts>,
}

/// What was found out about a device.
#[derive(Clone, Debug)]
pub struct DeviceFacts {
    /// As a person knows it.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes in all.
    pub memory: u64,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Most shared memory that a block may ask for.
    pub shared_bytes: usize,
    /// Whether a grid can be launched whose blocks wait for each other.
    pub cooperative: bool,
    /// Whether it can address page-locked memory of the host.
    pub maps_host: bool,
    /// Whether kernels that run for seconds are ended, since the device drives a display.
    pub watched: bool,
}

/// Whether everything is there. Looks in the order in which a person would mend things.
///
/// # Errors
/// The first thing that is not.
pub fn check(facts: &Facts) -> Result<(), Unavailable> {
    let missing =
        |found: bool, reason: &dyn Fn() -> String| if found { Ok(()) } else { Err(Unavailable::new(reason())) };
    let Facts { os, wanted, .. } = facts;
    missing(matches!(*os, "linux" | "windows"), &|| format!("NVIDIA has no CUDA driver for {os}"))?;
    if let Some(why) = &facts.left_out {
        return Err(Unavailable::new(format_args!("this build has no CUDA kernels: {why}")));
    }
    missing(facts.library, &|| {
        let name = if *os == "windows" { "nvcuda.dll" } else { "libcuda.so.1" };
        format!(
            "no NVIDIA driver was found ({name}); if there is an NVIDIA GPU, install its driver, version 580 or newer"
        )
    })?;
    let blocking = facts.launch_blocking.as_deref().is_some_and(|value| !matches!(value.trim(), "" | "0"));
    missing(!blocking, &|| {
        "CUDA_LAUNCH_BLOCKING is set: a launch would wait for a kernel that runs as long as this program; unset it"
            .into()
    })?;
    if let Some(version) = facts.driver {
        missing(version >= OLDEST_DRIVER, &|| {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            format!(
                "the NVIDIA driver knows CUDA {major}.{minor}, megaring needs 13.0; install driver version 580 or newer"
            )
        })?;
    }
    if let Some(broken) = &facts.broken {
        return Err(Unavailable::new(format_args!(
            "the NVIDIA driver does not work: {broken}; `nvidia-smi` may tell more"
        )));
    }
    let count = facts.devices.unwrap_or(0);
    missing(count > 0, &|| {
        "the NVIDIA driver sees no GPU; does this machine or container have one, and CUDA_VISIBLE_DEVICES leave it?"
            .into()
    })?;
    missing(*wanted < count, &|| match count {
        1 => format!("there is no CUDA device {wanted}: the only one is number 0"),
        _ => format!("there is no CUDA device {wanted}: they are numbered 0 to {}", count - 1),
    })?;
    facts.device.as_ref().map_or(Ok(()), check_device)
}

fn check_device(device: &DeviceFacts) -> Result<(), Unavailable> {
    let DeviceFacts { name, capability, memory, cooperative, maps_host, .. } = device;
    let reason = if *capability < OLDEST_CAPABILITY {
        let ((major, minor), (oldest, oldest_minor)) = (*capability, OLDEST_CAPABILITY);
        format!(
            "{name} has compute capability {major}.{minor}, megaring needs {oldest}.{oldest_minor} (Turing) or newer"
        )
    } else if *memory < LEAST_MEMORY {
        format!("{name} has {} MiB of memory, and megaring needs {}", memory >> 20, LEAST_MEMORY >> 20)
    } else if !cooperative {
        format!("{name} cannot launch a grid whose blocks wait for each other, in the mode that its driver is in")
    } else if !maps_host {
        format!("{name} cannot address this machine's memory, in which the ring lies")
    } else {
        return Ok(());
    };
    Err(Unavailable::new(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            os: "linux",
            left_out: None,
            launch_blocking: None,
            library: true,
            broken: None,
            driver: Some(13_000),
            devices: Some(2),
            wanted: 1,
            device: Some(DeviceFacts {
                name: "A GPU".into(),
                capability: (7, 5),
                memory: 8 << 30,
                multiprocessors: 40,
                shared_bytes: 64 << 10,
                cooperative: true,
                maps_host: true,
                watched: false,
            }),
        }
    }

    fn device(change: impl FnOnce(&mut DeviceFacts)) -> Facts {
        let mut facts = good();
        change(facts.device.as_mut().expect("there is one"));
        facts
    }

    #[test]
    fn a_machine_that_has_everything_passes() {
        let passes = [
            good(),
            Facts { driver: Some(13_010), ..good() },
            Facts { os: "windows", ..good() },
            Facts { launch_blocking: Some("0".into()), ..good() },
            Facts { launch_blocking: Some(String::new()), ..good() },
            Facts { wanted: 0, devices: Some(1), ..good() },
            device(|device| device.capability = (12, 0)),
            device(|device| device.memory = LEAST_MEMORY),
            device(|device| device.watched = true),
        ];
        for facts in passes {
            assert_eq!(check(&facts), Ok(()), "{facts:?}");
        }
    }

    #[test]
    fn what_is_missing_is_named_and_so_is_what_would_help() {
        let none = Facts { library: false, driver: None, devices: None, device: None, ..good() };
        let refusals: [(Facts, &[&str]); 16] = [
            (Facts { os: "macos", ..none.clone() }, &["macos"]),
            (none.clone(), &["libcuda.so.1", "580"]),
            (Facts { os: "windows", ..none.clone() }, &["nvcuda.dll"]),
            (Facts { left_out: Some("there was no nvcc".into()), ..none }, &["no CUDA kernels", "there was no nvcc"]),
            (Facts { driver: Some(12_040), ..good() }, &["12.4", "13.0", "580"]),
            (Facts { driver: Some(12_090), broken: Some("cuFuncLoad".into()), ..good() }, &["12.9"]),
            (Facts { broken: Some("cuInit".into()), ..good() }, &["cuInit", "nvidia-smi"]),
            (Facts { devices: Some(0), device: None, ..good() }, &["no GPU", "CUDA_VISIBLE_DEVICES"]),
            (Facts { devices: None, device: None, ..good() }, &["no GPU"]),
            (Facts { wanted: 2, device: None, ..good() }, &["no CUDA device 2", "0 to 1"]),
            (Facts { wanted: 1, devices: Some(1), device: None, ..good() }, &["the only one is number 0"]),
            (Facts { launch_blocking: Some("1".into()), ..good() }, &["CUDA_LAUNCH_BLOCKING", "unset"]),
            (device(|device| device.capability = (7, 0)), &["A GPU", "7.0", "7.5"]),
            (device(|device| device.memory = LEAST_MEMORY - 1), &["1023 MiB"]),
            (device(|device| device.cooperative = false), &["wait for each other"]),
            (device(|device| device.maps_host = false), &["memory"]),
        ];
        for (facts, words) in refusals {
            let reason = check(&facts).expect_err(words[0]).to_string();
            for word in words {
                assert!(reason.contains(word), "{reason:?} does not speak of {word:?}");
            }
        }
    }
}
