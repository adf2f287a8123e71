"""What a machine is and how it is doing, from the standard library, /proc and /sys; what cannot be known is None.

Nothing here names the machine's owner: no host name, no addresses, no serial numbers.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from .reasons import skipped

CPUS = Path("/sys/devices/system/cpu")
OPENCVS = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
ARM_CORES = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD44: "Cortex-X1",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
}
"""Part numbers of Arm's own cores, as `CPU part` of /proc/cpuinfo (implementer 0x41) gives them; from Arm's manuals."""


def processor_facts() -> dict[str, Any]:
    """Return what the processor is: fast, without numpy or onnxruntime.

    Returns:
        `architecture` (`x86_64`, `aarch64`, …), `name`, `cores` (physical cores that this process may use), `logical_cores`
        (hardware threads that it may use), `features` (flags that all of these share, sorted; empty where there is no
        /proc/cpuinfo).
    """
    machine = platform.machine().lower()
    blocks = _cpuinfo()
    usable = _usable_cpus()
    mine = [block for number, block in blocks.items() if number in usable] or list(blocks.values())
    flags = [set((block.get("flags") or block.get("Features") or "").split()) for block in mine]
    return {
        "architecture": ARCHITECTURES.get(machine, machine),
        "name": _processor_name(mine),
        "cores": len({_core_of(cpu, blocks.get(cpu, {})) for cpu in usable}),
        "logical_cores": len(usable),
        "features": sorted(set.intersection(*flags)) if flags else [],
    }


def environment() -> dict[str, Any]:
    """Return the processor's facts and everything else that a measurement depends on.

    Returns:
        The keys of `processor_facts`, those of `condition`, and `machine_model`, `os`, `kernel`, `python`, `numpy`,
        `onnxruntime`, `providers`, `memory_total_bytes`, `disk_free_bytes` (in the folder for temporary files), `decoders`
        (`pillow` and `opencv`: their versions where they are installed, else None), `clock` (UTC, as this machine believes it
        to be), and `skipped`: for each of these that is None, why.
    """
    onnxruntime = _module("onnxruntime")
    facts = {
        **processor_facts(),
        **condition(),
        "machine_model": _machine_model(),
        "os": _os_name(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": getattr(_module("numpy"), "__version__", None),
        "onnxruntime": getattr(onnxruntime, "__version__", None),
        "providers": list(onnxruntime.get_available_providers()) if onnxruntime else None,
        "memory_total_bytes": _memory_bytes("MemTotal"),
        "disk_free_bytes": _disk_free_bytes(),
        "decoders": {"pillow": _version("PIL", ("pillow",)), "opencv": _version("cv2", OPENCVS)},
        "clock": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return {**facts, "skipped": skipped(facts)}


def condition() -> dict[str, Any]:
    """Return what changes while a machine works.

    Returns:
        `memory_available_bytes`, `load_average` (over 1, 5 and 15 minutes), `temperature_c` (of the hottest zone), `governor`,
        `frequency_khz` (per usable hardware thread), `throttled` (whether the processor is being slowed down right now).
    """
    return {
        "memory_available_bytes": _memory_bytes("MemAvailable"),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "temperature_c": _temperature_c(),
        "governor": _governor(),
        "frequency_khz": _frequency_khz(),
        "throttled": _throttled(),
    }


def _text(path: Path) -> str | None:
    # Sensors that exist may still refuse to be read (EIO, EINVAL), and a container may hide any of them.
    try:
        return path.read_bytes().decode("utf-8", "replace").strip(" \t\r\n\0") or None
    except OSError:
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    try:
        return int(text, 0) if text else None
    except ValueError:
        return None


def _usable_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _cpuinfo() -> dict[int, dict[str, str]]:
    """Return /proc/cpuinfo: number of a processor → its keys."""
    blocks: dict[int, dict[str, str]] = {}
    for paragraph in (_text(Path("/proc/cpuinfo")) or "").split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        block = {key.strip(): value.strip() for key, _, value in pairs}
        if block.get("processor", "").isdigit():
            blocks[int(block["processor"])] = block
    return blocks


def _core_of(cpu: int, block: dict[str, str]) -> Any:
    """Return something that two hardware threads share if and only if they are one physical core."""
    topology = CPUS / f"cpu{cpu}" / "topology"
    siblings = _text(topology / "thread_siblings_list")
    if siblings:
        return siblings
    if "core id" in block:
        return block.get("physical id"), block["core id"]
    return cpu


def _processor_name(blocks: Iterable[dict[str, str]]) -> str:
    names: list[str] = []
    for block in blocks:
        name = block.get("model name") or _arm_name(block)
        if name and name not in names:
            names.append(name)
    return " + ".join(names) or platform.processor()


def _arm_name(block: dict[str, str]) -> str:
    try:
        part = int(block.get("CPU part", ""), 16)
    except ValueError:
        return ""
    known = ARM_CORES.get(part) if block.get("CPU implementer") == "0x41" else None
    return known or f"{block.get('CPU implementer', '?')}:{part:#x}"


def _module(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _disk_free_bytes() -> int | None:
    try:
        return shutil.disk_usage(tempfile.gettempdir()).free
    except OSError:
        return None


def _version(module: str, distributions: Iterable[str]) -> str | None:
    """Return the version of a package that is installed, without importing it: OpenCV's import takes half a second."""
    if importlib.util.find_spec(module) is None:
        return None
    installed = {entry.metadata["Name"]: entry.version for entry in metadata.distributions() if entry.metadata["Name"]}
    return next((installed[name] for name in installed if name.lower() in distributions), "of an unknown version")


def _machine_model() -> str | None:
    return _text(Path("/proc/device-tree/model")) or _text(Path("/sys/class/dmi/id/product_name"))


def _os_name() -> str:
    for line in (_text(Path("/etc/os-release")) or "").splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return platform.platform(terse=True)


def _memory_bytes(key: str) -> int | None:
    for line in (_text(Path("/proc/meminfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return None


def _temperature_c() -> float | None:
    zones = (_number(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp"))
    # A sensor that is switched off reads as absolute zero or as a large number.
    plausible = [zone / 1000 for zone in zones if zone is not None and -40_000 < zone < 150_000]
    return round(max(plausible), 1) if plausible else None


def _governor() -> str | None:
    found = {_text(CPUS / f"cpu{cpu}" / "cpufreq" / "scaling_governor") for cpu in _usable_cpus()}
    return ", ".join(sorted(name for name in found if name)) or None


def _frequency_khz() -> list[int] | None:
    found = (_number(CPUS / f"cpu{cpu}" / "cpufreq" / "scaling_cur_freq") for cpu in _usable_cpus())
    return [frequency for frequency in found if frequency is not None] or None


def _throttled() -> bool | None:
    # The Raspberry Pi's firmware: the low four bits are what it does now, the upper ones what it once did.
    flags = _text(Path("/sys/devices/platform/soc/soc:firmware/get_throttled"))
    if flags:
        try:
            return int(flags, 16) & 0xF != 0
        except ValueError:
            return None
    coolers = [path for path in Path("/sys/class/thermal").glob("cooling_device*") if _cools_processor(path)]
    states = [state for state in (_number(path / "cur_state") for path in coolers) if state is not None]
    return any(states) if states else None


def _cools_processor(path: Path) -> bool:
    kind = (_text(path / "type") or "").lower()
    return "cpufreq" in kind or kind.startswith("processor")
