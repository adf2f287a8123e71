"""The tables of distillation and of watching."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgetune.schema import Strict

__all__ = ["DistillRecipe", "WatchRecipe", "is_teachers_path"]


def is_teachers_path(teacher: str) -> bool:
    """Return whether a teacher is given as a path, not by the name of a backbone."""
    return teacher.endswith((".onnx", ".safetensors")) or "/" in teacher


class DistillRecipe(Strict):
    """A student learns from a teacher: a larger network that looks at the same views."""

    teacher: str = ""
    """None if empty. A backbone's name, a run folder or checkpoint of edgetune, a .safetensors file, or an .onnx file."""
    more_teachers: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Others, named as the first one is: the answers of all are averaged."""
    loss: Literal["dist", "kl", "dkd", "features"] = "kl"
    """KL divergence, DIST (relations between and within classes), decoupled KD, or matching of the pooled features."""
    weight: float = Field(default=1.0, ge=0.0, le=1000.0)
    """Of the distillation's loss."""
    label_weight: Annotated[float, Field(ge=0.0, le=1000.0)] | Literal["auto"] = "auto"
    """Of the labels' own loss; 0 learns from the teacher alone. auto: 0.5 for kl, else 1."""
    temperature: Annotated[float, Field(gt=0.0, le=100.0)] | Literal["auto"] = "auto"
    """Logits are divided by it before they are compared. auto: 2 for kl, else 1."""
    beta: float = Field(default=2.0, ge=0.0, le=1000.0)
    """DIST: of the relations between the classes of an image; DKD: of the classes that are not the label."""
    gamma: float = Field(default=2.0, ge=0.0, le=1000.0)
    """DIST: of the relations between the images of a batch."""
    alpha: float = Field(default=1.0, ge=0.0, le=1000.0)
    """DKD: of the label's own class."""
    teacher_epochs: Annotated[int, Field(ge=0, le=10_000)] | Literal["auto"] = "auto"
    """Epochs that a teacher given by name is fine-tuned for; auto: a fifth of what `train.epochs = "auto"` would be, as what
    it has learnt by heart it cannot teach; as many where it begins at random weights. 0 is a linear probe."""
    teacher_members: Annotated[int, Field(ge=1, le=20)] | Literal["auto"] = "auto"
    """How often a teacher given by name is fine-tuned, each time from another seed; the answers are averaged, as what the
    networks differ in is chance. auto: twice; once for features, which have no mean, and for a linear probe, which comes out
    the same from every seed."""
    teacher_generations: int = Field(default=1, ge=1, le=10)
    """1: what was fine-tuned teaches the student. 2: it teaches one more network of the same backbone first, by KL, and that
    one teaches the student; and so on (born-again networks, Furlanello et al. 2018)."""
    teacher_taught_epochs: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    """Epochs of the later generations; auto: three fifths of what `train.epochs = "auto"` would be; as many where the teacher
    begins at random weights."""
    teacher_label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Of a teacher given by name, instead of the student's: smoothing wipes out what it knows of likeness between classes
    (Mueller, Kornblith and Hinton 2019)."""
    teacher_image_size: Annotated[int, Field(ge=16, le=1024)] | Literal["auto"] = "auto"
    """Height and width that a teacher given by name enlarges the student's views to, in training and in answering; auto: by two
    thirds, but no further than what its weights were trained on."""
    teacher_weights: str = Field(default="auto", min_length=1)
    """Pretrained weights of a teacher that is given by name, as `model.weights`."""
    cache: bool = True
    """Keep the teacher's answers on disk, each with the view that it is of, so that later epochs and runs need no teacher."""
    views: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    """How many different views of each image the teacher answers before they come again; auto: one for each epoch."""
    ablate: bool = False
    """Train the same student without the teacher, too, and report on the test set what the teacher gave."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """All teachers; none if empty."""
        return (self.teacher, *self.more_teachers) if self.teacher else ()

    @property
    def told_of_named_teachers(self) -> tuple[str, ...]:
        """The keys for teachers given by name that are not as by default."""
        fields = type(self).model_fields
        return tuple(key for key in fields if key.startswith("teacher_") and getattr(self, key) != fields[key].default)

    @property
    def used_teacher_members(self) -> int:
        """How often a teacher given by name is fine-tuned, as decided for this loss."""
        if self.teacher_members != "auto":
            return self.teacher_members
        return 1 if self.loss == "features" or self.teacher_epochs == 0 else 2

    @property
    def used_label_weight(self) -> float:
        """The weight of the labels' own loss, as decided for this loss."""
        if self.label_weight != "auto":
            return self.label_weight
        return 0.5 if self.loss == "kl" else 1.0

    @property
    def used_temperature(self) -> float:
        """The temperature, as decided for this loss."""
        if self.temperature != "auto":
            return self.temperature
        return 2.0 if self.loss == "kl" else 1.0


class WatchRecipe(Strict):
    """Who is told how the training goes. Nothing here changes what is trained."""

    tensorboard: bool = True
    """Write event files into RUN/tensorboard."""
    mlflow: str = ""
    """The tracking address of an MLflow server, or a folder; needs the extra `mlflow`."""
    pictures: bool = True
    """Draw curves and the confusion matrix into RUN/pictures."""
