"""The tables of distillation and of watching."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgetune.schema import Strict

__all__ = ["DistillRecipe", "WatchRecipe"]


class DistillRecipe(Strict):
    """A student learns from a teacher: a larger network that looks at the same views."""

    teacher: str = ""
    """None if empty. A backbone's name, a run folder or checkpoint of edgetune, a .safetensors file, or an .onnx file."""
    loss: Literal["dist", "kl", "dkd", "features"] = "kl"
    """KL divergence, DIST (relations between and within classes), decoupled KD, or matching of the pooled features."""
    weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    """Of the distillation's loss."""
    label_weight: float = Field(default=0.5, ge=0.0, le=1000.0)
    """Of the labels' own loss; 0 learns from the teacher alone."""
    temperature: float = Field(default=2.0, gt=0.0, le=100.0)
    """Logits are divided by it before they are compared."""
    beta: float = Field(default=2.0, ge=0.0, le=1000.0)
    """DIST: of the relations between the classes of an image; DKD: of the classes that are not the label."""
    gamma: float = Field(default=2.0, ge=0.0, le=1000.0)
    """DIST: of the relations between the images of a batch."""
    alpha: float = Field(default=1.0, ge=0.0, le=1000.0)
    """DKD: of the label's own class."""
    teacher_epochs: Annotated[int, Field(ge=0, le=10_000)] | Literal["auto"] = "auto"
    """Epochs that a teacher is fine-tuned for, where its head does not know the task yet; auto: as for a student."""
    teacher_weights: str = Field(default="auto", min_length=1)
    """Pretrained weights of a teacher that is given by name, as `model.weights`."""
    cache: bool = True
    """Keep the teacher's answers on disk, each with the view that it is of, so that later epochs and runs need no teacher."""
    views: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    """How many different views of each image the teacher answers before they come again; auto: one for each epoch."""
    ablate: bool = False
    """Train the same student without the teacher, too, and report on the test set what the teacher gave."""


class WatchRecipe(Strict):
    """Who is told how the training goes. Nothing here changes what is trained."""

    tensorboard: bool = True
    """Write event files into RUN/tensorboard."""
    mlflow: str = ""
    """The tracking address of an MLflow server, or a folder; needs the extra `mlflow`."""
    pictures: bool = True
    """Draw curves and the confusion matrix into RUN/pictures."""
