"""Teachers by what a recipe calls them: files that there are, or a backbone and how it is fine-tuned first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.errors import UsageError
from edgetune.recipe import ModelRecipe, Recipe, TrainRecipe
from edgetune.train.ends import first_convs
from edgetune.train.schedule import auto_teacher_epochs

if TYPE_CHECKING:
    from edgetune.artefacts import Checkpoint

__all__ = ["teacher_at", "teacher_model", "teacher_recipe", "teacher_size"]

ENLARGED_BY = 5 / 3
SIZE_STEP = 16


def teacher_at(teacher: str) -> Checkpoint | Path:
    """Return the teacher that lies at a path: a checkpoint, or the path of an ONNX file.

    Raises:
        UsageError: there is no such file, or it is no checkpoint.
    """
    from edgetune.train.earlier import checkpoint_at

    path = Path(teacher).expanduser()
    if not teacher.endswith(".onnx"):
        return checkpoint_at(path.parent if path.is_file() else path)
    if not path.is_file():
        raise UsageError(f"distill.teacher: {path} is not a file", remedy="give an .onnx file, a run folder or a name")
    return path


def teacher_model(recipe: Recipe, backbone: str, *, image_size: int) -> ModelRecipe:
    """Return the network of a teacher that is given by its backbone's name.

    Args:
        recipe: the student's.
        backbone: of the teacher.
        image_size: height and width of the student's views, in pixels.
    """
    distill = recipe.distill
    size: int | None = None
    if distill.teacher_image_size != "auto":
        size = distill.teacher_image_size
    elif distill.teacher_weights != "none":
        size = teacher_size(backbone, image_size)
    model = ModelRecipe(backbone=backbone, weights=distill.teacher_weights, drop_rate=recipe.model.drop_rate)
    return model.model_copy(update={"enlarge_to": size})


def teacher_recipe(recipe: Recipe, *, images: int, taught: bool) -> TrainRecipe:
    """Return how a teacher that is given by its backbone's name is fine-tuned: as its student, but for what is said here.

    Args:
        recipe: the student's.
        images: of the train set.
        taught: whether it has teachers of its own: the generation before it.
    """
    distill, student = recipe.distill, recipe.train
    epochs = distill.teacher_taught_epochs if taught else distill.teacher_epochs
    if epochs == "auto":
        epochs = auto_teacher_epochs(images, pretrained=distill.teacher_weights != "none", taught=taught)
    return student.model_copy(
        update={
            "strategy": student.strategy if student.strategy in ("full", "gradual") else "lp-ft",
            "epochs": epochs,
            "label_smoothing": distill.teacher_label_smoothing,
            "time_budget_s": None,
            "freeze": "",
            "l2_sp": 0.0,
        }
    )


def teacher_size(backbone: str, image_size: int) -> int | None:
    """Return what a teacher enlarges its student's views to: by two thirds, but no further than its weights' own size.

    A network is best near the size that its weights were trained on, even where a larger view shows nothing more.

    Args:
        backbone: of the teacher.
        image_size: height and width of the student's views, in pixels.

    Returns:
        Height and width in pixels, a multiple of 16 or the weights' own; None where the views stay as they are, since the
        backbone takes one size only, or its own is not larger.
    """
    import timm
    import torch

    config = timm.get_pretrained_cfg(backbone)
    if config is None or config.fixed_input_size:
        return None
    with torch.device("meta"):
        resamples = first_convs(timm.create_model(backbone, pretrained=False))
    size = min(int(config.input_size[-1]), SIZE_STEP * round(ENLARGED_BY * image_size / SIZE_STEP))
    return size if resamples and size > image_size else None
