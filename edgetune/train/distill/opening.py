"""A guide whose answers lie where several runs find them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.device.heads import Head, column_names, heads_to_json
from edgetune.files import digest_of
from edgetune.train.distill.cache import AnswerCache
from edgetune.train.distill.guide import Guide
from edgetune.train.distill.losses import Gather, create_projector
from edgetune.train.distill.teacher import TeacherSource, shows_no_features

if TYPE_CHECKING:
    import torch

    from edgetune.progress import Progress
    from edgetune.recipe import DistillRecipe

__all__ = ["Views", "open_guide"]

# Raised when the code changes what a teacher says of the same view.
REVISION = 2


@dataclass(frozen=True, kw_only=True)
class Views:
    """Everything that a teacher may be asked about.

    Attributes:
        images: digest of the images as they lie there: the data set, its preprocessing, the images without labels.
        draws: what a view depends on beside its image, as JSON types: the recipe of random views, its seed, the size.
        count: how many of each image.
        rows: train images and, behind them, those without labels.
        validation_rows: validation images.
    """

    images: str
    draws: Mapping[str, Any]
    count: int
    rows: int
    validation_rows: int


def open_guide(
    source: TeacherSource,
    recipe: DistillRecipe,
    heads: Sequence[Head],
    views: Views,
    folder: Path,
    *,
    student_width: int,
    seed: int,
    device: torch.device,
    progress: Progress,
    offset: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    head_weights: Sequence[float] = (),
    gather: Gather | None = None,
) -> Guide:
    """Return a guide whose answers lie below a folder, under the digest of everything that they depend on.

    Args:
        source: the teacher; it is loaded here only where the width of its features is not known from an earlier run.
        recipe: what is compared, and whether answers are kept.
        heads: the student's.
        views: what the teacher may be asked about.
        folder: of all answers, as RUN/distill; each set of them has a folder of its own below it.
        student_width: of the student's pooled features, for the loss features.
        seed: of the projector's first weights, for the same.
        device: where the answers are wanted.
        progress: told what is not as it was.
        offset: see `Guide`.
        scale: see `Guide`.
        head_weights: see `Guide`.
        gather: see `Guide`.

    Raises:
        UsageError: there is no space for the answers, or the teacher has no features to show.
    """
    known = {
        "revision": REVISION,
        "teacher": source.identity,
        # Thresholds are chosen after training, and no answer depends on them.
        "heads": [{**entry, "thresholds": []} for entry in heads_to_json(heads)],
        "units": [None if values is None else values.tolist() for values in (offset, scale)],
        "images": views.images,
    }
    what = "features" if recipe.loss == "features" else "logits"
    train = digest_of({**known, "answers": what, "draws": dict(views.draws)})
    width, projector = len(column_names(heads)), None
    if what == "features":
        source, width = _feature_width(source, folder, train)
        projector = create_projector(student_width, width, seed)

    def opened(key: str, count: int, rows: int, width: int) -> AnswerCache | None:
        if not recipe.cache:
            return None
        return AnswerCache(folder / key[:16], key, views=count, rows=rows, width=width, progress=progress)

    return Guide(
        source,
        opened(train, views.count, views.rows, width),
        recipe,
        heads,
        device,
        offset=offset,
        scale=scale,
        head_weights=head_weights,
        gather=gather,
        projector=projector,
        validation_cache=opened(
            digest_of({**known, "answers": "validation"}), 1, views.validation_rows, len(column_names(heads))
        ),
    )


def _feature_width(source: TeacherSource, folder: Path, key: str) -> tuple[TeacherSource, int]:
    """Return the width of a teacher's features, and the source, which remembers the teacher if it had to be loaded."""
    stored = AnswerCache.stored_width(folder / key[:16], key)
    if stored is not None:
        return source, stored
    teacher = source.load()
    if teacher.feature_width is None:
        raise shows_no_features(source.description)
    return replace(source, create=lambda: teacher), teacher.feature_width
