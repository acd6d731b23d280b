//! The adapters that the wgpu backend could work on: every one that a driver shows, also those that are not used, and
//! why not.

use megaring_wgpu::AdapterReport;

use super::Finding;
use crate::config::{GpuUse, Settings};

/// One for each adapter. Drivers are left alone where the settings leave the backend out.
pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    if settings.wgpu == GpuUse::Off {
        return Vec::new();
    }
    let adapters = megaring_wgpu::adapters();
    if adapters.is_empty() { vec![none()] } else { adapters.iter().map(finding).collect() }
}

fn none() -> Finding {
    let help = if cfg!(target_os = "linux") {
        "wgpu works through Vulkan: the GPU's own driver brings it, or mesa-vulkan-drivers (software too), and libvulkan1 the loader \
         (Debian and Ubuntu: `apt-get install mesa-vulkan-drivers libvulkan1`)"
    } else {
        "wgpu works through Vulkan, Metal or DX12: the GPU's own driver brings one of them"
    };
    Finding::note("adapters", "no driver for Vulkan, Metal or DX12 shows any", help)
}

fn finding(adapter: &AdapterReport) -> Finding {
    let AdapterReport { name, api, kind, software, driver, limits, features, lacks } = adapter;
    let check = format!("adapter {name}");
    let features = if features.is_empty() { String::new() } else { format!("; {}", features.join(", ")) };
    let found = format!("{kind} through {api}, {driver}; {limits}{features}");
    match lacks {
        Some(lacks) => Finding::note(check, format!("{found}; it {lacks}"), "it is not used; a newer driver may help"),
        None if *software => Finding::ok(check, format!("{found}; used only where --wgpu-adapter names it")),
        None => Finding::ok(check, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn an_adapter_is_told_with_what_it_has_and_lacks() {
        let report = AdapterReport {
            name: "Some GPU".into(),
            api: "vulkan",
            kind: "discrete GPU",
            software: false,
            driver: "some driver 1.2".into(),
            limits: "128 MiB a binding".into(),
            features: vec!["subgroups of 32".into(), "float64".into()],
            lacks: None,
        };
        let Finding { check, state, found, .. } = finding(&report);
        assert_eq!((check.as_str(), state), ("adapter Some GPU", State::Ok));
        assert_eq!(found, "discrete GPU through vulkan, some driver 1.2; 128 MiB a binding; subgroups of 32, float64");
        let software = finding(&AdapterReport { software: true, features: Vec::new(), ..report.clone() });
        assert!(
            software.state == State::Ok && software.found.ends_with("binding; used only where --wgpu-adapter names it")
        );
        let poor = finding(&AdapterReport { lacks: Some("has 4 bindings where 5 are needed".into()), ..report });
        assert!(poor.state == State::Note && poor.found.ends_with("float64; it has 4 bindings where 5 are needed"));
        assert!(none().state == State::Note && none().help.is_some());
    }
}
