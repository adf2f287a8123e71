"""A measurement as a runner leaves it, made up, to be changed in one place and then judged."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np

from edgetune.artefacts import Measurement, NumericParity
from edgetune.device.heads import default_heads
from edgetune.verify.choose import choose
from edgetune.verify.judge import judge
from edgetune.verify.limits import Limits

IMAGES = 400
SIZES = {"fp32": 4_000_000, "int8": 1_100_000}
PARITY = NumericParity(images=64, max_abs=1e-5, nmse=1e-12, top1_agreement_percent=100.0, worst="cat/1.png")
LIMITS = Limits(
    parity_max_abs=1e-3,
    top1_drop_points=1.0,
    top1_agreement_percent=95.0,
    map_drop_points=1.0,
    rmse_increase_percent=5.0,
    golden_max_abs=0.5,
)
LABELS = np.arange(IMAGES) % 4
TARGETS = LABELS[:, None].astype(np.float32)
HEADS = default_heads(("blue", "green", "grey", "red"))
QUIET = {"architecture": "x86_64", "cores": 4, "logical_cores": 8, "load_average": [0.5, 0.5, 0.5], "governor": "performance"}
GOLDEN = {
    "images": 3,
    "decode": {"status": "exact", "max_pixel_difference": 0, "reason": ""},
    "logits": {"max_abs": 0.0, "bit_equal": True, "finite": True, "top1_changed": 0},
}


def times(scale: float) -> dict:
    rounds = [scale * (1 + 0.002 * math.sin(k)) for k in range(16)]
    return {"p50_ms": scale, "p90_ms": 1.1 * scale, "queries": 1024, "round_medians_ms": rounds, "spread_percent": 0.4}


class Lab:
    """A measurement as a runner leaves it, to be changed in one place by a test and then judged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        right = 5 * np.eye(4, dtype=np.float32)[LABELS]
        self.logits = {"fp32": right.copy(), "int8": right + np.float32(0.05)}
        self.models = {
            name: {
                "sha256": "0" * 64,
                "classes": 4,
                "eval": {"images": IMAGES, "finite": True, "constant": False},
                "latency": times(scale),
                "footprint": {"cold_start_ms": 5.0, "first_inference_ms": 1.0, "peak_memory_bytes": 9_000_000},
            }
            for name, scale in (("fp32", 3.0), ("int8", 1.5))
        }
        self.before, self.after = dict(QUIET), dict(QUIET)
        self.is_target = True
        self.golden = None

    def measurement(self) -> Measurement:
        for name in self.models:
            np.save(self.folder / f"logits-{name}.npy", self.logits[name])
        raw = {"models": self.models, "environment": self.before, "environment_after": self.after, "golden": self.golden}
        reason = "" if self.is_target else "processor lacks asimddp"
        return Measurement(where="a lab", is_target=self.is_target, stand_in_reason=reason, raw=copy.deepcopy(raw)).at(
            self.folder
        )

    def rows(self, precision: str = "auto", limits: Limits = LIMITS, **changes):
        measurement = self.measurement()
        sizes = {name: size for name, size in SIZES.items() if name in self.models}
        choice = choose(precision, measurement, sizes)
        given = {"heads": HEADS, "choice": choice, "limits": limits, "parity": PARITY, "sizes": sizes, **changes}
        return {(row.kind, row.name): row for row in judge(measurement, TARGETS, **given)}

    def row(self, kind: str, word: str, **how):
        (found,) = [row for (k, name), row in self.rows(**how).items() if k == kind and word in name]
        return found
