"""A candidate held against its baseline: what `edgetune compare` leaves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from edgetune.artefacts.judgement import VerdictName, VerdictRow

__all__ = ["ChangedDecision", "Compared", "Comparison"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Compared(_Value):
    """One of the two sides.

    Attributes:
        given: what the user named: the last parts of a path.
        kind: `bundle`, `model` (a bare ONNX file) or `figures` (a baseline file).
        product: of the bundle; else the file's name.
        precision: fp32 or int8, as the bundle says; empty where it is not known.
        model_sha256: of the ONNX file.
        bundle_sha256: of the bundle's manifest; empty for a bare file.
        size_bytes: of the ONNX file.
    """

    given: str
    kind: str
    product: str
    precision: str = ""
    model_sha256: str
    bundle_sha256: str = ""
    size_bytes: int


class ChangedDecision(_Value):
    """An image about which the candidate decides otherwise than its baseline.

    Attributes:
        image: its path below the data's source.
        index: its place among the images compared.
        head: the task; empty for a classifier.
        label: what is right; empty where it is not known.
        baseline: what the baseline decides.
        candidate: what the candidate decides.
        effect: `lost` (only the baseline is right), `gained` (only the candidate is), `other` (neither, or not known).
        margin: how sure the candidate is: the probability of its decision less that of the baseline's decision, 0 to 1; None
            where the probabilities are not known.
        picture: name of the PNG in the report's folder; empty where none was written.
    """

    image: str
    index: int
    head: str = ""
    label: str
    baseline: str
    candidate: str
    effect: str
    margin: float | None = None
    picture: str = ""


class Comparison(_Value):
    """The judgement; `comparison.json` is this, and everything else is drawn from it.

    Attributes:
        schema_: the version of this layout.
        overall: BROKEN if any verdict is, else INCONCLUSIVE if any is, else KEPT.
        baseline: what was accepted.
        candidate: what is to take its place.
        verdicts: all checks. `data` of each has `samples` and `smallest`: how much was looked at and the smallest change that
            would have been seen four times out of five, in words.
        changed: decisions that changed, worst first.
        changed_total: how many there are, where only the worst are listed.
        data: the images: `source`, `images`, and the digests of pixels and labels; empty without any.
        where: the device that measured.
        environment: of that device, with its load before and after.
        tolerances: that were judged by.
        warnings: what a reader must know.
    """

    schema_: int = Field(default=1, alias="schema", serialization_alias="schema")
    overall: VerdictName
    baseline: Compared
    candidate: Compared
    verdicts: tuple[VerdictRow, ...]
    changed: tuple[ChangedDecision, ...] = ()
    changed_total: int = 0
    data: dict[str, Any] = Field(default_factory=dict)
    where: str
    environment: dict[str, Any]
    tolerances: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON types."""
        return self.model_dump(mode="json", by_alias=True)
