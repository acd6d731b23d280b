//! Which adapters this machine has, and which one is used.
//!
//! An adapter that is a program on the CPU (lavapipe, WARP, SwiftShader) is correct, but slower than the CPU backend.
//! It is used only where it is asked for by name.

use wgpu::{Adapter, AdapterInfo, Backends, DeviceType, Features, Instance, InstanceDescriptor, InstanceFlags, Limits};

use crate::Unavailable;
use crate::stage::Shape;

/// Storage buffers that a stage binds: input, scratch, output, and the two of a part of a corpus.
const STORAGE_BUFFERS: u32 = 5;
/// The least binding that is worth having.
const LEAST_BINDING: u64 = 16 << 20;

/// An adapter as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterReport {
    /// Its name, by any part of which it can be asked for.
    pub name: String,
    /// What it is reached through: vulkan, metal or dx12.
    pub api: &'static str,
    /// What it is, such as "discrete GPU".
    pub kind: &'static str,
    /// A program on the CPU, used only where it is asked for.
    pub software: bool,
    /// Its driver and that one's version.
    pub driver: String,
    /// Limits that matter here, such as "128 MiB a binding".
    pub limits: String,
    /// Features that are made use of, such as "subgroups of 8".
    pub features: Vec<String>,
    /// What it lacks, if anything.
    pub lacks: Option<String>,
}

/// Every adapter of this machine, those that cannot be used too. Empty where there is no Vulkan, Metal or DX12 at all.
#[must_use]
pub fn adapters() -> Vec<AdapterReport> {
    enumerate().iter().map(report).collect()
}

/// The adapters to try, the best first: those whose name contains `wish`, or else those that are not software.
///
/// # Errors
/// Why there is none.
pub(crate) fn candidates(wish: Option<&str>) -> Result<Vec<Adapter>, Unavailable> {
    let all = enumerate();
    let infos: Vec<AdapterInfo> = all.iter().map(Adapter::get_info).collect();
    order(&infos, wish).map(|places| places.into_iter().map(|place| all[place].clone()).collect())
}

fn order(infos: &[AdapterInfo], wish: Option<&str>) -> Result<Vec<usize>, Unavailable> {
    if infos.is_empty() {
        return Err(Unavailable::new(
            "this machine has no Vulkan, Metal or DX12 adapter (on Debian and Ubuntu, the package mesa-vulkan-drivers \
             brings drivers, and libvulkan1 the loader)",
        ));
    }
    let wanted = wish.map(str::to_lowercase);
    let is_candidate = |info: &AdapterInfo| match &wanted {
        Some(wanted) => info.name.to_lowercase().contains(wanted),
        None => !is_software(info),
    };
    let mut places: Vec<usize> = (0..infos.len()).filter(|place| is_candidate(&infos[*place])).collect();
    places.sort_by_key(|place| preference(infos[*place].device_type));
    if !places.is_empty() {
        return Ok(places);
    }
    let names = infos.iter().map(|info| &*info.name).collect::<Vec<_>>().join(", ");
    Err(Unavailable::new(match wish {
        Some(wish) => format!("no adapter's name contains {wish:?}; there is {names}"),
        None => {
            format!("there is only software ({names}), used where MEGARING_WGPU_ADAPTER or --wgpu-adapter names it")
        }
    }))
}

/// Whether an adapter has the least that the stages need.
///
/// # Errors
/// What it lacks.
pub(crate) fn suffices(adapter: &Adapter) -> Result<(), Unavailable> {
    let name = adapter.get_info().name;
    lacks(&adapter.limits()).map_or(Ok(()), |lacks| Err(Unavailable::new(format_args!("the adapter {name} {lacks}"))))
}

/// Whether an adapter is a program on the CPU.
pub(crate) fn is_software(info: &AdapterInfo) -> bool {
    info.device_type == DeviceType::Cpu
}

/// Whether the device's memory is the host's, so that a buffer that both use needs no copy.
pub(crate) fn shares_memory(info: &AdapterInfo) -> bool {
    matches!(info.device_type, DeviceType::IntegratedGpu | DeviceType::Cpu)
}

/// The API's name as settings and reports have it.
pub(crate) fn api(info: &AdapterInfo) -> &'static str {
    info.backend.to_str()
}

fn enumerate() -> Vec<Adapter> {
    let descriptor = InstanceDescriptor {
        backends: Backends::PRIMARY,
        flags: InstanceFlags::empty(),
        ..InstanceDescriptor::new_without_display_handle()
    };
    pollster::block_on(Instance::new(descriptor).enumerate_adapters(Backends::PRIMARY))
}

fn preference(kind: DeviceType) -> u32 {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

/// The driver and its version.
pub(crate) fn driver(info: &AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().to_owned()
}

fn report(adapter: &Adapter) -> AdapterReport {
    let (info, limits) = (adapter.get_info(), adapter.limits());
    let kind = match info.device_type {
        DeviceType::DiscreteGpu => "discrete GPU",
        DeviceType::IntegratedGpu => "integrated GPU",
        DeviceType::VirtualGpu => "virtual GPU",
        DeviceType::Cpu => "software",
        DeviceType::Other => "device of another kind",
    };
    AdapterReport {
        api: api(&info),
        kind,
        software: is_software(&info),
        driver: driver(&info),
        limits: format!(
            "{} MiB a binding, {} MiB a buffer, {} KiB of workgroup memory, workgroups of {}",
            limits.max_storage_buffer_binding_size >> 20,
            limits.max_buffer_size >> 20,
            limits.max_compute_workgroup_storage_size >> 10,
            limits.max_compute_invocations_per_workgroup,
        ),
        features: features(adapter.features(), &info),
        lacks: lacks(&limits),
        name: info.name,
    }
}

fn features(has: Features, info: &AdapterInfo) -> Vec<String> {
    let subgroups = match (info.subgroup_min_size, info.subgroup_max_size) {
        (least, most) if least == most => format!("subgroups of {least}"),
        (least, most) => format!("subgroups of {least} to {most}"),
    };
    [
        (Features::SUBGROUP, subgroups),
        (Features::SHADER_F64, "float64".to_owned()),
        (Features::MAPPABLE_PRIMARY_BUFFERS, "mappable buffers".to_owned()),
    ]
    .into_iter()
    .filter(|(feature, _)| has.contains(*feature))
    .map(|(_, name)| name)
    .collect()
}

/// What of the least that the stages need is missing.
fn lacks(limits: &Limits) -> Option<String> {
    let Shape { invocations, workgroup_bytes } = Shape::LEAST;
    let least = [
        ("storage buffers a stage", u64::from(limits.max_storage_buffers_per_shader_stage), u64::from(STORAGE_BUFFERS)),
        ("bytes of workgroup memory", u64::from(limits.max_compute_workgroup_storage_size), u64::from(workgroup_bytes)),
        ("invocations a workgroup", u64::from(limits.max_compute_invocations_per_workgroup), u64::from(invocations)),
        ("bytes a binding", limits.max_storage_buffer_binding_size, LEAST_BINDING),
    ];
    let (what, has, needs) = least.into_iter().find(|(_, has, needs)| has < needs)?;
    Some(format!("has {has} {what} where {needs} are needed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_that_is_too_small_is_told_what_it_lacks() {
        assert_eq!(lacks(&Limits::default()), None);
        for (limits, word) in [
            (Limits { max_storage_buffers_per_shader_stage: 4, ..Limits::default() }, "storage buffers"),
            (Limits { max_compute_workgroup_storage_size: 8 << 10, ..Limits::default() }, "workgroup memory"),
            (Limits { max_compute_invocations_per_workgroup: 128, ..Limits::default() }, "invocations"),
            (Limits { max_storage_buffer_binding_size: 1 << 20, ..Limits::default() }, "a binding"),
        ] {
            let reason = lacks(&limits).unwrap_or_default();
            assert!(reason.contains(word), "{reason:?} should speak of {word}");
        }
    }

    #[test]
    fn an_adapter_that_is_not_there_is_refused_with_the_names_of_those_that_are() {
        let refused = candidates(Some("no adapter has such a name")).expect_err("no adapter has such a name");
        assert!(refused.reason.contains("adapter"), "{refused}");
    }

    #[test]
    fn candidates_are_those_asked_for_the_best_first() {
        let info = |(name, kind): (&str, DeviceType)| AdapterInfo {
            name: name.to_owned(),
            ..AdapterInfo::new(kind, wgpu::Backend::Vulkan)
        };
        let software = ("llvmpipe", DeviceType::Cpu);
        let many =
            [software, ("Iris", DeviceType::IntegratedGpu), ("Radeon", DeviceType::DiscreteGpu), software].map(info);
        for (infos, wish, wanted) in [
            (&many[..], None, Ok(vec![2, 1])),
            (&many[..], Some(""), Ok(vec![2, 1, 0, 3])),
            (&many[..], Some("R"), Ok(vec![2, 1])),
            (&many[..], Some("LLVM"), Ok(vec![0, 3])),
            (&many[..2], Some("arc"), Err("there is llvmpipe, Iris")),
            (&many[..1], None, Err("only software (llvmpipe)")),
            (&[], Some(""), Err("no Vulkan, Metal or DX12 adapter")),
        ] {
            match (order(infos, wish), wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{wish:?}"),
                (Err(refused), Err(wanted)) => assert!(refused.reason.contains(wanted), "{wish:?}: {refused}"),
                (found, wanted) => panic!("{wish:?}: {found:?} where {wanted:?} should be"),
            }
        }
    }
}
