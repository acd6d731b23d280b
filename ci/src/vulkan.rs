//! What the tests of the wgpu backend need of a system: on Linux a Vulkan loader and a driver, which may be software
//! (lavapipe). Elsewhere Metal or DX12 is part of the system.
//!
//! Only files are looked at. Whether a driver has an adapter to show is found out by `megaring doctor`, and by the
//! tests, which say so.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::command::ask;
use crate::workspace::Workspace;

/// The loader, as programs ask the system for it.
const LOADER: &str = "libvulkan.so.1";
/// Where drivers put their manifests.
const FOLDERS: [&str; 3] = ["/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d"];
/// Name manifests, or folders of them, to heed instead.
const NAMED: [&str; 2] = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"];

/// What is there; the error is one sentence that says what is missing and how to get it.
pub(crate) fn find(workspace: &Workspace) -> Result<String> {
    if !cfg!(target_os = "linux") {
        return Ok("the system's own graphics are there for the wgpu backend.".into());
    }
    let advice = "On Debian and Ubuntu `apt-get install mesa-vulkan-drivers libvulkan1` brings it.";
    if !has_loader(workspace) {
        return Err(format!("{LOADER}, the Vulkan loader, is not there. {advice}"));
    }
    let named = NAMED.iter().find_map(env::var_os).filter(|names| !names.is_empty());
    let places = match &named {
        Some(names) => env::split_paths(names).collect(),
        None => FOLDERS.map(PathBuf::from).to_vec(),
    };
    match places.iter().map(|place| manifests(place)).sum::<usize>() {
        0 => Err(format!("no Vulkan driver is there. {advice}")),
        1 => Ok("Vulkan is there, with 1 driver.".into()),
        drivers => Ok(format!("Vulkan is there, with {drivers} drivers.")),
    }
}

/// As [`find`], for those who can do without: what came of it, in a sentence.
pub(crate) fn try_find(workspace: &Workspace) -> String {
    find(workspace).unwrap_or_else(|reason| format!("Tests of the wgpu backend will be skipped: {reason}"))
}

/// Why tests of the wgpu backend were skipped, in a sentence, where that is for want of what [`find`] looks for.
pub(crate) fn missing(workspace: &Workspace) -> Option<String> {
    find(workspace).err().map(|reason| format!("Tests of the wgpu backend were skipped: {reason}"))
}

fn has_loader(workspace: &Workspace) -> bool {
    let listed = |program: &str| ask(workspace.command(program).arg("-p")).is_some_and(|all| all.contains(LOADER));
    let folders = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    // ldconfig is not on everybody's PATH.
    ["ldconfig", "/sbin/ldconfig"].iter().any(|program| listed(program))
        || env::split_paths(&folders).any(|folder| folder.join(LOADER).exists())
}

/// Manifests at a place, which is one or a folder of them.
fn manifests(place: &Path) -> usize {
    let is_manifest = |path: &Path| path.extension() == Some(OsStr::new("json")) && path.is_file();
    let within = fs::read_dir(place).into_iter().flatten().flatten().filter(|entry| is_manifest(&entry.path()));
    within.count() + usize::from(is_manifest(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_counted_by_file_and_by_folder() {
        let workspace = Workspace::locate().expect("tests run inside the checkout");
        let folder = workspace.target().join(format!("vulkan-test-{}", std::process::id()));
        fs::create_dir_all(folder.join("c.json")).expect("a folder");
        for name in ["a.json", "b.json", "readme.txt"] {
            fs::write(folder.join(name), "{}").expect("room on disk");
        }
        let counts = ["", "a.json", "readme.txt", "no.json", "c.json"].map(|name| manifests(&folder.join(name)));
        fs::remove_dir_all(&folder).expect("it is ours");
        assert_eq!(counts, [2, 1, 0, 0, 0]);
    }

    #[test]
    fn what_is_missing_is_told_with_how_to_get_it() {
        let workspace = Workspace::locate().expect("tests run inside the checkout");
        match find(&workspace) {
            Ok(found) => {
                assert!(try_find(&workspace) == found && found.ends_with('.'), "{found}");
                assert_eq!(missing(&workspace), None);
            }
            Err(reason) => {
                assert!(reason.contains("mesa-vulkan-drivers") && reason.contains("libvulkan1"), "{reason}");
                assert!(try_find(&workspace).contains(&reason));
                assert!(missing(&workspace).is_some_and(|told| told.ends_with(&reason) && !told.contains('\n')));
            }
        }
    }
}
