"""What `edgetune data` reports: a frozen account of a source's health."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgetune.artefacts import Split

__all__ = ["HeadAccount", "Hygiene", "Leak", "Spread"]


class Leak(BaseModel):
    """Images of one split that have a copy in another.

    Attributes:
        into: the split that should have been unseen.
        source: the split that has the copies too.
        exact: images of `into` with an equal picture in `source`.
        near: further ones with a near-duplicate there.
        flattered_points: by how many points this can raise the accuracy measured on `into`, at most.
        pairs: each such image with one of its copies.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    into: Split
    source: Split
    exact: int
    near: int
    flattered_points: float
    pairs: tuple[tuple[str, str], ...]


class Spread(BaseModel):
    """How the known values of a regression lie, in their own units."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    smallest: float
    median: float
    largest: float
    std: float


class HeadAccount(BaseModel):
    """What is known for one task, over all usable images.

    Attributes:
        name: of the task.
        kind: as in `Head`.
        labels: class or label → split → images that show it; empty for a regression.
        values: value → how it lies; of a regression only.
        unknown: images of which the class, label or value is not known, by its name; those known of all are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    kind: str
    labels: dict[str, dict[str, int]]
    values: dict[str, Spread]
    unknown: dict[str, int]


class Hygiene(BaseModel):
    """What is known about the images of a source. Names are paths below the source.

    Attributes:
        source: as the recipe gave it.
        listed: images found.
        usable: images left when the unusable ones are taken away.
        image_size: height and width of the model's input, in pixels, as the recipe says or chosen by the images.
        given_splits: the splits that the source has itself.
        classes: class → split → images; for other tasks than a single label, the strata by which images are split.
        heads: for other tasks than a single label, an account of each.
        unlabelled: images without labels that may be learnt from.
        unlabelled_copies: name of an unlabelled image → the validation or test image that it is a copy of; left out.
        widths: smallest, median and largest, in pixels; of decoded images.
        heights: the same.
        conversions: what decoding had to convert → images.
        skipped: name → why it was passed over.
        corrupt: name → why it cannot be decoded.
        duplicates: sets of equal pictures.
        near_duplicates: sets of pictures joined by near-duplicates, where they are more than equal ones.
        conflicts: sets of equal pictures under several labels, or with other targets that differ.
        near_conflicts: sets of near-duplicates under several labels; only reported.
        leakage: copies across the source's own splits.
        imbalance: images of the largest class in train over those of the smallest.
        problems: what makes the source unusable under the recipe, one sentence each.
        warnings: what a reader of the report must know, one sentence each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    source: str
    listed: int
    usable: int
    image_size: int
    given_splits: tuple[Split, ...]
    classes: dict[str, dict[str, int]]
    widths: tuple[int, int, int] | None
    heights: tuple[int, int, int] | None
    conversions: dict[str, int]
    skipped: dict[str, str]
    corrupt: dict[str, str]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, ...], ...]
    conflicts: tuple[tuple[str, ...], ...]
    near_conflicts: tuple[tuple[str, ...], ...]
    leakage: tuple[Leak, ...]
    imbalance: float | None
    heads: tuple[HeadAccount, ...] = ()
    unlabelled: int = 0
    unlabelled_copies: dict[str, str] = {}
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
