"""Facts about this machine, and about boards whose /proc and /sys are written down here."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from edgetune.device import environment as module
from edgetune.device.environment import condition, environment, processor_facts

RK3588 = "\n\n".join(
    f"processor\t: {number}\nFeatures\t: fp asimd asimddp{extra}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n"
    for number, (part, extra) in enumerate([("0xd05", "")] * 4 + [("0xd0b", " ssbs")] * 4)
)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root folder that stands in for /: what is not in it does not exist."""

    class Rooted(type(Path())):  # type: ignore[misc]
        def __new__(cls, *parts: object) -> Path:
            first, *rest = map(str, parts)
            return Path(str(tmp_path) + first if first.startswith("/") else first, *rest)

    monkeypatch.setattr(module, "Path", Rooted)
    monkeypatch.setattr(module, "CPUS", tmp_path / "sys/devices/system/cpu")
    return tmp_path


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_this_machine() -> None:
    facts = processor_facts()
    assert set(facts) == {"architecture", "name", "cores", "logical_cores", "features"}
    assert facts["logical_cores"] == len(os.sched_getaffinity(0))
    assert 1 <= facts["cores"] <= facts["logical_cores"]
    assert facts["features"] == sorted(set(facts["features"]))
    assert facts["features"]


def test_processor_facts_are_fast() -> None:
    processor_facts()
    begin = time.perf_counter()
    for _ in range(5):
        processor_facts()
    assert (time.perf_counter() - begin) / 5 < 0.05


def test_affinity_counts() -> None:
    allowed = os.sched_getaffinity(0)
    one = min(allowed)
    try:
        os.sched_setaffinity(0, {one})
        assert processor_facts()["cores"] == processor_facts()["logical_cores"] == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_the_environment_is_json_and_names_nobody() -> None:
    text = json.dumps(environment(), allow_nan=False)
    facts = json.loads(text)
    assert {"onnxruntime", "numpy", "python", "providers", "kernel", "os", "clock", "memory_total_bytes"} <= set(facts)
    assert "CPUExecutionProvider" in facts["providers"]
    assert set(condition()) <= set(facts)
    assert socket.gethostname() not in (facts["machine_model"] or "", facts["name"])


def test_a_board_with_two_kinds_of_cores(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(board, proc__cpuinfo=RK3588)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert processor_facts() == {
        "architecture": "aarch64",
        "name": "Cortex-A55 + Cortex-A76",
        "cores": 8,
        "logical_cores": 8,
        "features": ["asimd", "asimddp", "fp"],
    }
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5})
    assert processor_facts()["name"] == "Cortex-A76"
    assert "ssbs" in processor_facts()["features"]


def test_hardware_threads_of_one_core_count_once(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = "processor\t: {}\nphysical id\t: 0\ncore id\t: {}\nflags\t: avx2\n"
    write(board, proc__cpuinfo="\n".join(block.format(number, number // 2) for number in range(4)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert (processor_facts()["cores"], processor_facts()["logical_cores"]) == (2, 4)
    for cpu in range(4):
        write(board, **{f"sys__devices__system__cpu__cpu{cpu}__topology__thread_siblings_list": "0-3\n"})
    assert processor_facts()["cores"] == 1


def test_sensors(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    thermal, cpu = "sys__class__thermal__", "sys__devices__system__cpu__cpu"
    write(
        board,
        **{
            f"{thermal}thermal_zone0__temp": "48250\n",
            f"{thermal}thermal_zone1__temp": "-274000\n",
            f"{thermal}thermal_zone2__temp": "not a number\n",
            f"{thermal}cooling_device0__type": "cpufreq-cpu0\n",
            f"{thermal}cooling_device0__cur_state": "2\n",
            f"{thermal}cooling_device1__type": "pwm-fan\n",
            f"{thermal}cooling_device1__cur_state": "0\n",
            f"{cpu}0__cpufreq__scaling_governor": "ondemand\n",
            f"{cpu}1__cpufreq__scaling_governor": "ondemand\n",
            f"{cpu}0__cpufreq__scaling_cur_freq": "1500000\n",
            f"{cpu}1__cpufreq__scaling_cur_freq": "600000\n",
            "proc__device-tree__model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc__meminfo": "MemTotal:        4000 kB\nMemAvailable:    1000 kB\n",
            "etc__os-release": 'NAME=x\nPRETTY_NAME="Debian GNU/Linux 12"\n',
        },
    )
    facts = environment()
    assert facts["temperature_c"] == 48.2
    assert facts["throttled"] is True
    assert facts["governor"] == "ondemand"
    assert facts["frequency_khz"] == [1_500_000, 600_000]
    assert facts["machine_model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert (facts["memory_total_bytes"], facts["memory_available_bytes"]) == (4_096_000, 1_024_000)
    assert facts["os"] == "Debian GNU/Linux 12"


@pytest.mark.parametrize(("flags", "throttled"), [("50000\n", False), ("50005\n", True), ("?\n", None)])
def test_a_raspberry_pi_tells_whether_it_throttles(board: Path, flags: str, throttled: bool | None) -> None:
    write(board, **{"sys__devices__platform__soc__soc:firmware__get_throttled": flags})
    assert condition()["throttled"] is throttled


def test_a_machine_that_tells_nothing(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on macOS and Windows: no /proc, no /sys, no affinity, and (Windows) no load average.
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "getloadavg")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    facts = environment()
    assert facts["architecture"] == "x86_64"
    assert facts["cores"] == facts["logical_cores"] == os.cpu_count()
    assert facts["features"] == []
    unknown = ("memory_total_bytes", "memory_available_bytes", "load_average", "temperature_c", "governor", "frequency_khz")
    assert [facts[key] for key in (*unknown, "throttled", "machine_model")] == [None] * 8
