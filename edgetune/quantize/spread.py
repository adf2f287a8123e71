"""Calibration luck: the cheap steps on other draws of the calibration images, scored on the same held-out images."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgetune.quantize.bias import correct_biases
from edgetune.quantize.equalise import equalise
from edgetune.quantize.ladder import Ladder, ranged
from edgetune.quantize.samples import calibration_rows

if TYPE_CHECKING:
    from edgetune.quantize.graph import QuantGraph
    from edgetune.quantize.heldout import Score
    from edgetune.quantize.samples import Samples

__all__ = ["other_samplings"]

# Far from the seeds that people count upwards from.
SEED_STEP = 1_000_003


def other_samplings(ladder: Ladder, prepared: QuantGraph) -> dict[str, Any] | None:
    """Return how much ranges and bias correction depend on which images calibrate.

    Nothing is chosen by it: the model is that of the first draw. The dearer steps take minutes each, and are not repeated.

    Args:
        ladder: that was climbed; its recipe says how many draws.
        prepared: what the ladder started from.

    Returns:
        `samplings` (their number, the first one with them), and for each its `divergence_nats`, `nmse` and
        `agreement_percent`, as lists; None where one draw is all that is asked for, or all that there is.
    """
    first = _cheap(ladder).to_json()
    found = [first]
    for number in range(1, ladder.recipe.samplings):
        samples = _drawn(ladder.samples, ladder.seed + number * SEED_STEP)
        if set(samples.calibration) == set(ladder.samples.calibration):
            return None
        found.append(_score(ladder, prepared, samples).to_json())
        ladder.progress.advance("other calibration images", number, ladder.recipe.samplings - 1)
    if len(found) == 1:
        return None
    figures = ("divergence_nats", "nmse", "agreement_percent")
    return {"samplings": len(found), **{name: [score[name] for score in found] for name in figures}}


def _cheap(ladder: Ladder) -> Score:
    """Return the score after the last step that is repeated."""
    return [rung for rung in ladder.rungs if rung.kept and rung.name.startswith(("ranges", "bias correction"))][-1].score


def _drawn(samples: Samples, seed: int) -> Samples:
    """Return as many calibration images of another draw; the held-out ones stay held out."""
    wanted = len(samples.calibration) + len(samples.held_out)
    rows, _ = calibration_rows(samples.dataset, wanted, seed)
    # Where all images calibrate, none is held out.
    held_out = set(samples.held_out) - set(samples.calibration)
    chosen = [row for row in rows if row not in held_out][: len(samples.calibration)]
    return replace(samples, calibration=tuple(chosen))


def _score(ladder: Ladder, prepared: QuantGraph, samples: Samples) -> Score:
    graph = ranged(equalise(prepared, ladder.recipe.equalise), samples, ladder.recipe, ladder.progress)
    if ladder.recipe.bias_correction:
        graph = correct_biases(graph, samples.batches(), scratch=ladder.scratch, progress=ladder.progress)
    return ladder.held_out.score(graph)
