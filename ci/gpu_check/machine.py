"""What the machine is, by queries alone: no setting of a device is ever changed."""

import os
import platform
import shutil
from pathlib import Path

from .programs import ask

FIELDS = (
    "name driver_version compute_cap memory.total memory.used clocks.sm clocks.mem clocks.max.sm clocks.max.mem "
    "persistence_mode compute_mode power.draw temperature.gpu "
    "pcie.link.gen.current pcie.link.width.current mig.mode.current"
).split()


def nvidia_smi(device, fields):
    """Values of one GPU by name, or `None` where nvidia-smi is not there or does not answer."""
    answer = ask(["nvidia-smi", f"--id={device}", "--query-gpu=" + ",".join(fields), "--format=csv,noheader,nounits"])
    if answer is None or not answer.strip():
        return None
    values = [value.strip() for value in answer.strip().splitlines()[0].split(",")]
    return dict(zip(fields, values)) if len(values) == len(fields) else None


def memory_used(device):
    """MiB of the GPU's memory that are in use, or `None` where nobody can tell."""
    try:
        return int(nvidia_smi(device, ["memory.used"])["memory.used"])
    except (TypeError, ValueError):
        return None


def facts(device):
    """The GPU (or `None`) and the host."""
    return {"gpu": nvidia_smi(device, FIELDS), "host": host()}


def host():
    cpu = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            cpu = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        pass
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "processors": processors, "system": platform.platform(), "python": platform.python_version()}


def compute_sanitizer():
    """Its path, where CUDA's tools are installed."""
    usual = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "compute-sanitizer"]
    found = shutil.which("compute-sanitizer")
    return found or next((str(path) for path in usual if path.is_file()), None)
