"""Why a machine could not tell something: a figure that is missing is never missing without a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REASONS = {
    "temperature_c": "no thermal zone below /sys/class/thermal that can be read and has a plausible value",
    "governor": "no cpufreq/scaling_governor below /sys/devices/system/cpu: no frequency scaling that this system shows",
    "frequency_khz": "no cpufreq/scaling_cur_freq below /sys/devices/system/cpu",
    "throttled": "neither the Raspberry Pi's firmware nor a cooling device of the processor is shown below /sys",
    "load_average": "this system has no load average",
    "memory_available_bytes": "no /proc/meminfo with MemAvailable",
    "memory_total_bytes": "no /proc/meminfo with MemTotal",
    "machine_model": "neither a device tree nor DMI names the machine",
    "disk_free_bytes": "the folder's file system does not say",
    "numpy": "numpy cannot be imported",
    "onnxruntime": "onnxruntime cannot be imported",
    "providers": "onnxruntime cannot be imported",
}


def skipped(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return, for each fact that is None, why it is not known."""
    return {key: REASONS.get(key, "this machine does not tell") for key, value in facts.items() if value is None}
