"""The teachers in the training loop: which views they are asked about, what the loss weighs, what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Checkpoint
from edgetune.errors import UsageError
from edgetune.files import digest_of, sha256_file
from edgetune.train.distill.committee import Committee
from edgetune.train.distill.network_teacher import checkpoint_teacher
from edgetune.train.distill.onnx_teacher import onnx_teacher
from edgetune.train.distill.opening import Views, open_guide
from edgetune.train.distributed import gathered, mean_gradients, world
from edgetune.train.network import forward_features, head_modules
from edgetune.train.step import Batch, mixes

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

    from edgetune.artefacts import Dataset
    from edgetune.progress import Progress
    from edgetune.recipe import DistillRecipe, TrainRecipe
    from edgetune.train.distill.guide import Guide
    from edgetune.train.distill.teacher import TeacherSource
    from edgetune.train.job import TrainJob
    from edgetune.train.objective import Objective

__all__ = ["Teaching", "open_teaching"]


class Teaching:
    """A guide, and how the loop uses it.

    Args:
        guide: knows what the teachers answer.
        network: the student.
        views: different views of each image before they come again.
        batch_size: images per step, over all processes.
        summary: what is known of the teacher.

    Attributes:
        label_weight: of the labels' own loss.
        projector: learns beside the student; None for losses on logits.
    """

    def __init__(
        self, guide: Guide | Committee, network: nn.Module, *, views: int, batch_size: int, summary: dict[str, Any]
    ) -> None:
        self.guide, self.views, self.batch_size = guide, views, batch_size
        self.label_weight, self.projector = guide.recipe.used_label_weight, guide.projector
        self._summary = summary
        self._features: list[torch.Tensor] = []
        if guide.on_features:
            head_modules(network).register_forward_pre_hook(_keeping(self._features))

    def view(self, epoch: int) -> int:
        """Return the number that an epoch's random views are drawn from."""
        return epoch % self.views

    def loss(self, logits: torch.Tensor, batch: Batch, view: int) -> torch.Tensor:
        """Return the teacher's part of the loss of a part of a step, weighed so that the parts of all processes add up.

        Args:
            logits: the student's, float32 `[n, C]`.
            batch: what it saw.
            view: the number that these views are drawn from.
        """
        answers = self.guide.answers(view, batch.rows.numpy(), batch.views)
        student = self._features[0].float() if self.guide.on_features else logits
        share = len(batch.rows) * world().size / self.batch_size
        return share * self.guide.loss(student, answers, batch.targets)

    def average_gradients(self) -> None:
        """Share the projector's gradients with the other processes; those of the student are shared already."""
        if self.projector is not None:
            mean_gradients(self.projector)

    def summary(self) -> dict[str, Any]:
        """Return what the checkpoint records of the teacher."""
        return self._summary


def _keeping(place: list[torch.Tensor]) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    """Return a hook that keeps what a head is about to see.

    A function, not a method: copies of the network, such as its average, would take a method's object along.
    """

    def keep(_head: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        place[:] = [inputs[0]]

    return keep


def open_teaching(
    job: TrainJob,
    network: nn.Module,
    recipe: TrainRecipe,
    objective: Objective,
    device: torch.device,
    progress: Progress,
    load_network: Callable[[Checkpoint], nn.Module],
) -> Teaching:
    """Return the teacher of a job, or all of its teachers as one, beside the student.

    Args:
        job: names the teachers.
        network: the student.
        recipe: with every auto decided.
        objective: gives the units of regressions and the weights of the heads.
        device: where to compute.
        progress: told how good they are.
        load_network: from a checkpoint to its network.

    Raises:
        DataError: a teacher does not know the student's classes.
        UsageError: a teacher cannot be opened, its answers cannot be stored, or the head would learn nothing.
    """
    if not job.teachers:
        raise ValueError("the job has no teacher")
    if job.distill.loss == "features" and job.distill.used_label_weight == 0:
        raise UsageError(
            "distill.loss = features with distill.label_weight = 0: the head would learn nothing",
            remedy="give the labels a weight, or choose a loss on logits",
        )
    views = int(recipe.epochs) if job.distill.views == "auto" else min(job.distill.views, max(1, int(recipe.epochs)))
    distill, dataset = _as_kept(job.distill, recipe, views, progress), job.dataset
    seen = Views(
        images=_images(dataset),
        draws=_draws(job, recipe),
        count=max(1, views),
        rows=dataset.counts["train"] + dataset.unlabelled,
        validation_rows=dataset.counts["val"],
    )
    guides = [
        open_guide(
            _source(teacher, dataset, device, load_network),
            distill,
            dataset.heads,
            seen,
            job.answers or job.folder,
            student_width=_feature_width(network),
            seed=job.seed,
            device=device,
            progress=progress,
            offset=objective.offset,
            scale=objective.scale,
            head_weights=[task.weight for task in objective.tasks],
            gather=gathered if world().size > 1 else None,
        )
        for teacher in job.teachers
    ]
    guide = guides[0] if len(guides) == 1 else Committee(guides)
    reached = guide.evaluate_teacher(dataset.images("val"), dataset.targets("val"))
    progress.line(f"teacher {guide.description}: validation {_words(reached)}")
    summary = {
        "teacher": guide.description,
        "loss": distill.loss,
        "weight": distill.weight,
        "label_weight": distill.used_label_weight,
        "temperature": distill.used_temperature,
        "views": views,
        "unlabelled": dataset.unlabelled,
        "teacher_val_metrics": reached,
    }
    return Teaching(guide, network, views=max(1, views), batch_size=recipe.batch_size, summary=summary)


def _draws(job: TrainJob, recipe: TrainRecipe) -> dict[str, Any]:
    """Return what the view of an image depends on beside its number, as JSON types."""
    draws: dict[str, Any] = {
        "augment": recipe.augment.model_dump(mode="json"),
        "seed": job.seed,
        "source": list(job.dataset.source_size),
    }
    # Which images meet, and how they are mixed, follows from the seed and the size of a batch.
    return {**draws, "batch_size": recipe.batch_size} if mixes(recipe.augment) else draws


def _as_kept(distill: DistillRecipe, recipe: TrainRecipe, views: int, progress: Progress) -> DistillRecipe:
    """Return the recipe without its cache, and say so, where an image and a number do not tell which mixed view is meant."""
    if not (distill.cache and mixes(recipe.augment)):
        return distill
    if recipe.balance == "sampler":
        reason = "the sampler draws an image several times in an epoch"
    elif views < int(recipe.epochs):
        reason = "an image meets others in each epoch, however often its view comes again"
    else:
        return distill
    progress.line(f"the teacher looks at mixed images each time, as {reason}: its answers are not kept")
    return distill.model_copy(update={"cache": False})


def _words(metrics: dict[str, float]) -> str:
    from edgetune.train.history import in_words

    return in_words(metrics)


def _source(
    teacher: Checkpoint | Path, dataset: Dataset, device: torch.device, load_network: Callable[[Checkpoint], nn.Module]
) -> TeacherSource:
    import torch

    if isinstance(teacher, Checkpoint):
        return checkpoint_teacher(teacher, dataset.heads, load_network, forward_features, device=device)
    return onnx_teacher(teacher, dataset.heads, threads=torch.get_num_threads())


def _images(dataset: Dataset) -> str:
    """Return a digest of the images that the teacher may be asked about, in their order."""
    files = ["train/source.npy", "val/images.npy", *(["unlabelled/source.npy"] if dataset.unlabelled else [])]
    return digest_of([sha256_file(dataset.folder / name) for name in files])


def _feature_width(network: nn.Module) -> int:
    from torch import nn

    return next(module for module in head_modules(network).modules() if isinstance(module, nn.Linear)).in_features
