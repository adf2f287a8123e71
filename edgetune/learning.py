"""The part of the straight line that learns: the teachers, the student, the ablation.

`Run` holds the values; here is what each of them depends on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.artefacts import Ablation, Checkpoint, LrCurve
from edgetune.errors import Interrupted, UsageError
from edgetune.features import check_weights, features_for, functions_of, images_of, machine_of
from edgetune.files import sha256_file, write_atomic
from edgetune.keys import NOT_THE_IMAGES, NOT_THE_WEIGHTS, REVISIONS, weights_identity
from edgetune.recipe import DistillRecipe, ModelRecipe, TrainRecipe, is_teachers_path
from edgetune.stagecache import identity

if TYPE_CHECKING:
    from edgetune.artefacts import Dataset
    from edgetune.pipeline import Run
    from edgetune.train.job import TrainJob

__all__ = ["ablation_of", "checkpoint_of", "lr_curve_of", "teachers_of"]

# What is said of a teacher is in the teacher, and the student depends on that.
OF_THE_TEACHER = {key for key in DistillRecipe.model_fields if key.startswith("teacher") or key == "more_teachers"}
PICTURE = "curves.png"


def checkpoint_of(run: Run) -> Checkpoint:
    """Return the fine-tuned network."""
    check_weights(run, run.recipe.model)
    distill = run.recipe.distill
    plan = _Plan(run=run, model=run.recipe.model, recipe=run.recipe.train, distill=distill, teachers=teachers_of(run))
    return _trained(plan, "train")


def teachers_of(run: Run) -> tuple[Checkpoint | Path, ...]:
    """Return the teachers: checkpoints or ONNX files that there are, and backbones that are fine-tuned first.

    Raises:
        UsageError: there is no such file, it is no checkpoint, or two teachers are the same one.
    """
    from edgetune.train.named import teacher_at

    names = run.recipe.distill.teachers
    # What lies at a path is opened first, and weights are found: a wrong name must not cost the fine-tuning of others.
    called: dict[str, list[Checkpoint | Path]] = {name: [teacher_at(name)] for name in names if is_teachers_path(name)}
    _require_different(called)
    models = {name: _named_model(run, name) for name in names if name not in called}
    if models and run.recipe.train.time_budget_s is not None:
        run.progress.line("the time budget is the student's alone: fine-tuning teachers given by name comes on top")
    called |= {name: list(_named_teachers(run, model)) for name, model in models.items()}
    _require_different(called)
    return tuple(teacher for name in names for teacher in called[name])


def _require_different(called: Mapping[str, Sequence[Checkpoint | Path]]) -> None:
    who: dict[str, str] = {}
    for name, teachers in called.items():
        for itself in map(_teacher_identity, teachers):
            if itself in who:
                raise UsageError(
                    f"distill.more_teachers: {name} is the same teacher as {who[itself]}",
                    remedy="leave it out: the mean of a teacher and itself says no more",
                )
            who[itself] = name


def _named_model(run: Run, name: str) -> ModelRecipe:
    from edgetune.train.named import teacher_model

    model = teacher_model(run.recipe, name, image_size=run.dataset.preprocessing.height)
    check_weights(run, model)
    return model


def _named_teachers(run: Run, model: ModelRecipe) -> tuple[Checkpoint, ...]:
    """Return the last generation of a teacher that is given by name: the members of the first one, or a network they taught."""
    from edgetune.train.named import teacher_recipe

    distill, images = run.recipe.distill, run.dataset.counts["train"]
    teachers: tuple[Checkpoint, ...] = ()
    for member in range(distill.used_teacher_members):
        run.progress.line(f"the teacher {model.backbone}{f', from seed {run.recipe.seed + member}' if member else ''}")
        recipe = teacher_recipe(run.recipe, images=images, taught=False)
        plan = _Plan(run=run, model=model, recipe=recipe, distill=DistillRecipe(), seed_offset=member)
        teachers += (_trained(plan, "teacher"),)
    for generation in range(2, distill.teacher_generations + 1):
        run.progress.line(f"the teacher {model.backbone}, generation {generation}, taught by the one before")
        recipe = teacher_recipe(run.recipe, images=images, taught=True)
        plan = _Plan(run=run, model=model, recipe=recipe, distill=DistillRecipe(cache=distill.cache), teachers=teachers)
        teachers = (_trained(plan, "teacher"),)
    return teachers


def _teacher_identity(teacher: Checkpoint | Path) -> str:
    return sha256_file(teacher) if isinstance(teacher, Path) else identity(teacher, ignore=NOT_THE_WEIGHTS)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """One training: of the student, of its teacher, or of the student without it."""

    run: Run
    model: ModelRecipe
    recipe: TrainRecipe
    distill: DistillRecipe
    teachers: tuple[Checkpoint | Path, ...] = ()
    seed_offset: int = 0

    @property
    def seed(self) -> int:
        """Where the training's randomness comes from."""
        return self.run.recipe.seed + self.seed_offset

    @property
    def dataset(self) -> Dataset:
        """The images; those without labels are only there for whoever has a teacher."""
        dataset = self.run.dataset
        return dataset if self.teachers else dataset.model_copy(update={"unlabelled": 0}).at(dataset.folder)

    def depends(self) -> dict[str, Any]:
        """Return everything that the result depends on."""
        run, model, taught = self.run, self.model, bool(self.teachers)
        return {
            "revision": REVISIONS["train"],
            "images": images_of(run),
            # The only thing about the source that training depends on: whether a mirrored image means the same.
            "digits": run.dataset.source == "digits",
            "unlabelled": self.dataset.unlabelled,
            "tasks": {name: task.model_dump(mode="json") for name, task in run.recipe.tasks.items()},
            "model": model.model_dump(mode="json", exclude={"weights"}),
            "weights": weights_identity(model.weights, model.backbone),
            "functions": functions_of(run, model),
            "recipe": self.recipe.model_dump(mode="json"),
            "distill": self.distill.model_dump(mode="json", exclude=OF_THE_TEACHER | {"ablate", "cache"}) if taught else None,
            "teachers": [_teacher_identity(teacher) for teacher in self.teachers],
            "seed": self.seed,
            **machine_of(self.recipe),
        }

    def job(self, folder: Path, key: str) -> TrainJob:
        """Return what is handed to the training room."""
        from edgetune.train.job import TrainJob

        run = self.run
        return TrainJob(
            dataset=self.dataset,
            model=self.model,
            recipe=self.recipe,
            seed=self.seed,
            key=key,
            folder=folder,
            tasks=run.recipe.tasks,
            functions=functions_of(run, self.model),
            features=features_for(run, self.model, self.recipe),
            distill=self.distill,
            teachers=self.teachers,
            answers=run.folder / "distill" if self.distill.cache else None,
        )


def _trained(plan: _Plan, stage: str) -> Checkpoint:
    run = plan.run

    def compute(folder: Path, key: str) -> Checkpoint:
        from edgetune.train.stage import train
        from edgetune.train.watch import Watch, open_watch

        def opened(step: int, settings: Mapping[str, Any]) -> Watch:
            place, name = run.folder / "tensorboard", f"{stage}-{key[:8]}"
            return open_watch(run.recipe.watch, place, name, from_step=step, settings=settings, progress=run.progress)

        job = plan.job(folder, key)
        with run.stop.polled():
            checkpoint = train(job, run.progress, run.stop, opened)
        if run.recipe.watch.pictures and checkpoint.epochs:
            from edgetune.report.pictures import draw_curves

            draw_curves(checkpoint.history(), folder / PICTURE)
        return checkpoint

    checkpoint = run.cache.value(Checkpoint, stage, plan.depends(), compute, resumes=True)
    if run.stop():
        # The signal came after the last step that asked.
        raise Interrupted("interrupted after training", remedy="run the same command again to go on")
    _show(run, checkpoint.folder / PICTURE, f"{stage}-{PICTURE}")
    return checkpoint


def _show(run: Run, picture: Path, name: str) -> None:
    """Put a stage's picture where people look for it."""
    if picture.is_file():
        write_atomic(run.folder / "pictures" / name, picture.read_bytes())


def lr_curve_of(run: Run, steps: int) -> LrCurve:
    """Return the learning-rate range test of what the run would train, and put its picture into the run folder."""
    check_weights(run, run.recipe.model)
    plan = _Plan(run=run, model=run.recipe.model, recipe=run.recipe.train, distill=DistillRecipe())

    def compute(folder: Path, key: str) -> LrCurve:
        from edgetune.report.pictures import draw_lr_find
        from edgetune.train.lrfind import find_lr

        job = plan.job(folder, key)
        with run.stop.polled():
            curve = find_lr(job, steps, run.progress, run.stop)
        draw_lr_find(curve.lrs, curve.losses, curve.suggestion, folder / "lr-find.png")
        return curve

    depends = {**plan.depends(), "revision": REVISIONS["lr-find"], "steps": steps}
    curve = run.cache.value(LrCurve, "lr-find", depends, compute)
    _show(run, curve.folder / "lr-find.png", "lr-find.png")
    return curve


def ablation_of(run: Run) -> Ablation:
    """Return what the teacher gave: the student against the same student without it, on the test set."""
    plan = _Plan(run=run, model=run.recipe.model, recipe=run.recipe.train, distill=DistillRecipe())
    plain = _trained(plan, "train")
    networks = {"with": run.checkpoint, "without": plain}
    depends = {
        "revision": REVISIONS["ablation"],
        "networks": {name: identity(one, ignore=NOT_THE_WEIGHTS) for name, one in networks.items()},
        "images": identity(run.dataset, ignore=NOT_THE_IMAGES),
        **machine_of(run.recipe.train),
    }

    def compute(folder: Path, _key: str) -> Ablation:
        from edgetune.train.compare import compare

        return compare(networks, run.dataset, run.recipe.train, folder)

    return run.cache.value(Ablation, "ablation", depends, compute)
