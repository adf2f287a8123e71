"""A small run: its settings, its stages, and how its commands are started."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

SETTINGS = (
    "data.image_size=32",
    "model.backbone=test_efficientnet",
    "model.weights=none",
    "train.epochs=2",
    "train.batch_size=16",
    "quantize.calibration_images=32",
    "quantize.precision=int8",
    # What is measured may differ from build to build: layers in float by latency are one of these.
    "quantize.effort=fast",
    "export.parity_images=6",
)
COLOURS = {"blue": (40, 60, 220), "green": (40, 190, 60), "red": (220, 50, 40)}
STAGES = ("data", "train", "export", "quantize", "measure", "report")


def arguments(*settings: str) -> list[str]:
    return [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]


def child(command: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "edgetune", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def wait_for_a_saved_state(process: subprocess.Popen, run: Path) -> None:
    """Wait until a child has saved in mid-training, which only the file tells; asked often, as the training takes a second."""
    deadline = time.monotonic() + 120
    while not list(run.glob("stages/train/*/state-*.safetensors")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def unchanged(capsys) -> list[str]:
    """The stages that the last command took from the cache."""
    return [line.split(":")[0] for line in capsys.readouterr().err.splitlines() if line.endswith(": unchanged")]
