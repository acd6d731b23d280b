"""Vulkan as the wgpu backend needs it, on an NVIDIA machine that may have the driver's library alone: no manifest, no loader.

Nothing is installed. A manifest is written beside the logs, the loader may lie beside the programs, and both are told to the programs by their
environment; only NVIDIA's driver is shown to them, so that no software can be taken for it.
"""

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .programs import ask

LOADER = "libvulkan.so.1"
# Either is the driver; the first needs the libraries of X11, which a machine without a screen may lack.
DRIVERS = ("libGLX_nvidia.so.0", "libEGL_nvidia.so.0")
# What the driver opens for itself; told, since shaders cannot be compiled without the one, whatever else is there.
PARTS = ("libnvidia-glvkspirv.so*", "libnvidia-vulkan*.so*")
MANIFESTS = ("etc/vulkan/icd.d", "usr/local/share/vulkan/icd.d", "usr/share/vulkan/icd.d")
LIBRARIES = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/nvidia/lib64",
    "usr/lib/nvidia",
    "run/opengl-driver/lib",
)
# What every Vulkan driver has for the loader.
ENTRY = "vk_icdGetInstanceProcAddr"
# Loads a library and looks up a name in it. In a process of its own: it is the driver's code.
LOADS = "import ctypes, sys\nlibrary = ctypes.CDLL(sys.argv[1])\nif sys.argv[2]: getattr(library, sys.argv[2])\n"


class Missing(Exception):
    """Why Vulkan is not to be had, in words."""


@dataclass
class Vulkan:
    """What the programs are told, and what was found."""

    env: dict = field(default_factory=dict)
    found: dict = field(default_factory=dict)


def loads(library, entry=""):
    """Whether a library can be loaded, and has the function `entry`."""
    return ask([sys.executable, "-c", LOADS, str(library), entry]) is not None


def find(programs, folder, root=Path("/"), loads=loads, listing=None):
    """The loader and NVIDIA's driver. `programs` may hold a loader, `folder` is where a manifest may be written."""
    listing = ask(["ldconfig", "-p"]) or ask(["/sbin/ldconfig", "-p"]) or "" if listing is None else listing
    loader, env = find_loader(programs, loads)
    library = find_driver(root, listing, loads)
    manifest = find_manifest(root, library)
    written = manifest is None
    if written:
        manifest = write_manifest(folder, library)
    # The older name for loaders before 1.3.207.
    env.update({"VK_DRIVER_FILES": str(manifest), "VK_ICD_FILENAMES": str(manifest)})
    found = {
        "loader": str(loader),
        "driver": str(library),
        "manifest": str(manifest),
        "manifest_written": written,
        "parts": sorted({path.name for part in PARTS for place in folders(root) for path in place.glob(part)}),
    }
    return Vulkan(env, found)


def find_loader(programs, loads):
    """The one that was brought along, or else the system's; with what makes programs find it."""
    brought = programs / LOADER
    if brought.is_file():
        if not loads(brought):
            raise Missing(f"the {LOADER} beside the programs cannot be loaded here")
        others = os.environ.get("LD_LIBRARY_PATH")
        return brought, {"LD_LIBRARY_PATH": f"{programs}:{others}" if others else str(programs)}
    if not loads(LOADER):
        raise Missing(f"there is no Vulkan loader: {LOADER} is neither on this machine nor beside the programs")
    return LOADER, {}


def find_driver(root, listing, loads):
    """NVIDIA's driver, by its full path."""
    unusable = []
    for name in DRIVERS:
        listed = [Path(path) for path in re.findall(rf"\s=> (\S*/{re.escape(name)})$", listing, re.MULTILINE)]
        paths = [path for path in (*listed, *(place / name for place in folders(root))) if path.is_file()]
        usable = next((path for path in paths if loads(path, ENTRY)), None)
        if usable is not None:
            return usable
        unusable += paths[:1]
    if unusable:
        raise Missing(f"the driver's {' and '.join(path.name for path in unusable)} cannot be loaded here")
    raise Missing(
        f"the driver's Vulkan library is not there ({' or '.join(DRIVERS)}); a container must be given it "
        "(NVIDIA_DRIVER_CAPABILITIES=graphics or all)"
    )


def folders(root):
    """Where libraries lie."""
    return [root / place for place in LIBRARIES]


def find_manifest(root, library):
    """The driver's own, where it names this very library."""
    for place in MANIFESTS:
        for path in sorted((root / place).glob("nvidia_icd*.json")):
            try:
                named = json.loads(path.read_text(encoding="utf-8"))["ICD"]["library_path"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if Path(named).name == library.name:
                return path
    return None


def write_manifest(folder, library):
    """One like NVIDIA's. The version is one that every driver for CUDA 13 has passed, and says which functions may be asked for."""
    path = folder / "nvidia_icd.json"
    icd = {"library_path": str(library), "api_version": "1.3.277"}
    path.write_text(json.dumps({"file_format_version": "1.0.1", "ICD": icd}) + "\n", encoding="utf-8")
    return path


def choose(adapters, rehearse):
    """The adapter that the backend will take, of those that the checker shows."""
    fit = [adapter for adapter in adapters if not adapter.get("lacks") and (rehearse or not adapter.get("software"))]
    if fit:
        return fit[0]
    names = ", ".join(f"{adapter['name']} ({adapter.get('lacks') or adapter['kind']})" for adapter in adapters)
    raise Missing(f"Vulkan shows no adapter that can be used: {names or 'none at all'}")
