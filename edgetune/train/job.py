"""What is to be trained: everything that decides the result, in one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgetune.artefacts import Checkpoint, Dataset, Features
from edgetune.recipe import DistillRecipe, ModelRecipe, TaskRecipe, TrainRecipe

__all__ = ["TrainJob"]


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Everything that decides what is trained.

    Attributes:
        dataset: the decoded images.
        model: the backbone and its weights.
        recipe: how to train.
        seed: where all randomness comes from.
        key: what the result depends on; a state saved under another key is not taken up.
        folder: where the checkpoint and, until it is complete, the state of the run are written.
        tasks: how each head is to be learnt, by its name.
        functions: the activation functions that the target has integer kernels for; see the profile.
        features: what the frozen backbone sees, where the strategy begins with a linear probe.
        distill: how to learn from the teacher.
        teachers: trained networks, or paths of ONNX files.
        answers: the folder of the teachers' answers.
    """

    dataset: Dataset
    model: ModelRecipe
    recipe: TrainRecipe
    seed: int
    key: str
    folder: Path
    tasks: Mapping[str, TaskRecipe] = field(default_factory=dict)
    functions: str = "any"
    features: Features | None = None
    distill: DistillRecipe = field(default_factory=DistillRecipe)
    teachers: tuple[Checkpoint | Path, ...] = ()
    answers: Path | None = None
