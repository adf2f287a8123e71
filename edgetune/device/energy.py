"""How much energy a machine draws, where it tells: the kernel's counters and power sensors below /sys.

- powercap, Intel's and AMD's RAPL: `energy_uj` of each package, a counter that wraps at `max_energy_range_uj`
  (kernel.org/doc/html/latest/power/powercap/powercap.html). Only root may read it on most systems.
- hwmon: `energy*_input`, a counter in microjoules, and `power*_input`, microwatts at this moment, which are sampled
  (kernel.org/doc/html/latest/hwmon/sysfs-interface.html).

What a sensor sees (a package, a rail, the whole board) only its label says, and rails may contain each other: every sensor is
reported by itself, and nothing is summed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .exitcodes import ExitCode, RunnerError

SYS = Path("/sys/class")
SAMPLES_PER_SECOND = 20.0
NONE = "neither a counter of powercap (RAPL) nor an energy or power sensor of hwmon below /sys/class"


@dataclass
class Meter:
    """A sensor, and what it counted so far.

    Attributes:
        name: what it measures, as the system says it.
        path: its file.
        samples: whether it tells power at this moment (microwatts) instead of counting energy (microjoules).
        wraps: where a counter begins again, in microjoules; 0 if that is not known.
        joules: counted since the clock was started.
    """

    name: str
    path: Path
    samples: bool
    wraps: int = 0
    joules: float = 0.0
    last: float = field(default=0.0, repr=False)
    at: float = field(default=0.0, repr=False)

    def start(self) -> None:
        """Count from now on."""
        self.joules, self.last, self.at = 0.0, float(self.path.read_text()), time.monotonic()

    def step(self) -> None:
        """Count what was drawn since the last step."""
        value, now = float(self.path.read_text()), time.monotonic()
        if self.samples:
            # The trapezoid between two samples.
            self.joules += (value + self.last) / 2 * (now - self.at) / 1e6
        else:
            gone = value - self.last
            self.joules += (gone + self.wraps if gone < 0 else gone) / 1e6
        self.last, self.at = value, now


def meters() -> tuple[list[Meter], str]:
    """Return the sensors that can be read here, and why there are none; empty if there are some."""
    found, refused = [], []
    for meter in _known():
        try:
            meter.start()
        except (OSError, ValueError) as fault:
            refused.append(f"{meter.path} cannot be read: {getattr(fault, 'strerror', None) or fault}")
            continue
        found.append(meter)
    return found, "" if found else "; ".join(refused[:3]) or NONE


def _known() -> Iterator[Meter]:
    # intel-rapl:0 is a package; intel-rapl:0:0 is a part of it, and intel-rapl-mmio the same package seen elsewhere.
    for path in sorted(SYS.glob("powercap/intel-rapl:*/energy_uj")):
        if path.parent.name.count(":") == 1:
            wraps = _text(path.parent / "max_energy_range_uj")
            yield Meter(f"powercap {_text(path.parent / 'name')}", path, False, int(wraps) if wraps.isdigit() else 0)
    for kind in ("energy", "power"):
        for path in sorted(SYS.glob(f"hwmon/hwmon*/{kind}*_input")):
            label = _text(path.with_name(path.name.replace("_input", "_label")))
            chip = _text(path.parent / "name") or path.parent.name
            yield Meter(f"hwmon {chip} {label or path.name[: -len('_input')]}", path, kind == "power")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def metered(found: list[Meter]) -> Iterator[dict[str, Any]]:
    """Count meanwhile what each sensor sees; afterwards the dictionary has `seconds`, and `joules` by the sensors' names.

    Raises:
        RunnerError: TARGET: a sensor that could be read cannot be any more.
    """
    told: dict[str, Any] = {}
    over = threading.Event()
    broken: list[Exception] = []

    def sample() -> None:
        try:
            while not over.wait(1 / SAMPLES_PER_SECOND):
                for meter in found:
                    meter.step()
        except (OSError, ValueError) as fault:
            broken.append(fault)

    for meter in found:
        meter.start()
    begin = time.monotonic()
    # A counter that is looked at often cannot wrap twice in between.
    watch = threading.Thread(target=sample, daemon=True)
    if found:
        watch.start()
    try:
        yield told
    finally:
        told["seconds"] = time.monotonic() - begin
        over.set()
        if found:
            watch.join()
    if broken:
        raise RunnerError(f"a sensor of energy cannot be read any more: {broken[0]}", ExitCode.TARGET)
    for meter in found:
        meter.step()
    told["joules"] = {meter.name: meter.joules for meter in found}
