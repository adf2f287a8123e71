"""Where a run's fp32 file comes from, and what report, bundle and keys say of that.

There are two origins: a network that was trained here (`Trained`), and a file that a user brought along
(`edgetune.outside.filerun.Brought`). What follows the fp32 file is the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import edgetune
from edgetune.artefacts import Ablation, Checkpoint
from edgetune.files import digest_of
from edgetune.keys import versions
from edgetune.stagecache import identity
from edgetune.verify.statistics import paired_drop

if TYPE_CHECKING:
    from edgetune.pipeline import Run

__all__ = ["Origin", "Trained", "provenance_of"]

PLACES = {"data": ("source", "root", "unlabelled", "download"), "distill": ("teacher", "ablate", "cache")}
"""Keys of a recipe that say where something lies on this machine, or what is done beside; not what a model is made of."""
TOP1 = "top-1 %"
"""What training calls the share of right decisions."""


class Origin(Protocol):
    """What is said of the network before its fp32 file, whoever made it."""

    @property
    def reference(self) -> str:
        """What the fp32 file was made from and compared with, in a word or two."""

    @property
    def command(self) -> str:
        """What builds the same run again."""

    @property
    def name(self) -> str:
        """The network, in the title of the report."""

    @property
    def provenance(self) -> dict[str, str]:
        """Versions and digests of what the network was made from; no path, time or person."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the report must know of the network."""

    def sections(self) -> dict[str, Mapping[str, Any]]:
        """Return the report's sections on the network, in reading order."""

    def depends(self) -> dict[str, Any]:
        """Return what these sections depend on, for the report's key."""


@dataclass(frozen=True)
class Trained:
    """A network that the run itself trained; nothing is computed before it is asked for."""

    run: Run
    reference: str = "torch"
    command: str = "edgetune build RUN"

    @property
    def name(self) -> str:
        """The backbone."""
        return self.run.checkpoint.backbone

    @property
    def provenance(self) -> dict[str, str]:
        """The pretrained weights, the teacher, and what trained."""
        checkpoint = self.run.checkpoint
        return {
            "weights": checkpoint.weights["reference"],
            "weights_sha256": checkpoint.weights["sha256"],
            **({"teacher": checkpoint.distillation["teacher"]} if checkpoint.distillation else {}),
            **versions("torch", "timm", "onnxscript"),
        }

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the training."""
        return self.run.checkpoint.warnings

    def sections(self) -> dict[str, Mapping[str, Any]]:
        """Return what was trained and what it reached, and what the teacher gave if there was one."""
        checkpoint = self.run.checkpoint
        sections: dict[str, Mapping[str, Any]] = {
            "train": {
                "backbone": checkpoint.backbone,
                "weights": checkpoint.weights["reference"],
                "epochs": checkpoint.epochs,
                "best_epoch": checkpoint.best_epoch,
                "averaged_epochs": checkpoint.averaged_epochs,
                **_validation(checkpoint),
            }
        }
        if checkpoint.distillation:
            sections["distillation"] = {**checkpoint.distillation, **_ablation(self.run.ablation)}
        return sections

    def depends(self) -> dict[str, Any]:
        """Return the digests of the checkpoint and of the ablation."""
        ablation = self.run.ablation
        return {"checkpoint": identity(self.run.checkpoint), "ablation": identity(ablation) if ablation else None}


def provenance_of(run: Run) -> dict[str, str]:
    """Return what a run's models are built from: versions and digests, nothing that names a time, a place or a person."""
    # Not the tables of later stages: a change there must not make the fp32 file another one.
    recipe = run.recipe.model_dump(mode="json", include={"data", "tasks", "model", "train", "distill", "export", "seed"})
    for table, names in PLACES.items():
        for name in names:
            recipe[table].pop(name)
    return {
        "edgetune": edgetune.__version__,
        "recipe_sha256": digest_of(recipe),
        "data_sha256": run.dataset.content_digest,
        **run.origin.provenance,
        **versions("onnx", "onnxruntime", "numpy", "pillow"),
    }


def _ablation(found: Ablation | None) -> dict[str, Any]:
    """Return what the teacher gave on the test set, if that was asked."""
    if found is None:
        return {"given": "not asked; `--ablate` trains the same student without the teacher, too"}
    facts: dict[str, Any] = {
        "test_with_teacher": found.taught,
        "test_without_teacher": found.plain,
        "test_images": found.images,
    }
    if found.gained is not None and found.lost is not None:
        given = paired_drop(found.lost, found.gained, found.images, 0.01)
        low, high = -given.high_points, -given.low_points
        facts["given"] = f"{-given.drop_points:+.2f} points of top-1 [{low:+.2f}, {high:+.2f}], of 90 % confidence"
    return facts


def _validation(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what was reached on the validation set: of a classifier its top-1, else all figures by name."""
    metrics = checkpoint.val_metrics
    if checkpoint.is_classifier and set(metrics) == {TOP1}:
        return {"val_top1_percent": metrics[TOP1]}
    return {"validation": dict(metrics)}
