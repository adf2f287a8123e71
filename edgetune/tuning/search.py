"""Session options searched on a device: the present ones stay unless others are faster beyond the noise.

All combinations (`candidates`) are tried a few times; the fastest of them go into a final of new measurements, so that luck in
the first part does not count in the second. Each trial is a pair of fresh processes, the present options beside others, that
take turns in short blocks. A finalist is faster if the upper bound of its Hodges-Lehmann estimate of ln(candidate / present) is
below zero, at a level of 5 % divided by the number of finalists. With them runs the control: the present options against
themselves. Where that shows a difference, the device is too restless to choose by.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgetune.errors import UsageError
from edgetune.gate.measuring import Device, restless_reasons
from edgetune.gate.sides import Side
from edgetune.profile import honoured
from edgetune.progress import Progress
from edgetune.tuning.asking import meet, queries_of, request_for
from edgetune.tuning.candidates import Candidate, candidates, in_words
from edgetune.tuning.trials import Trial, Tuned
from edgetune.verify.pairs import log_ratio
from edgetune.verify.statistics import hodges_lehmann
from edgetune.verify.targets.interface import LatencyRequest, TrialsRequest

__all__ = ["Pace", "judged", "tune"]

ALPHA = 0.05
BLOCK_MS = 8.0
"""A block of queries lasts about so long: shorter ones drown in the switch from one process to the other."""
FEWEST, MOST = 5, 64
PILOT = LatencyRequest(warmup=5, rounds=2, queries_per_round=8)

Pair = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured.

    Attributes:
        screening: rounds with all candidates.
        finalists: how many go into the final.
        rounds: of the final.
        blocks: of a pair.
    """

    screening: int = 3
    finalists: int = 3
    rounds: int = 12
    blocks: int = 16


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How queries follow each other.

    Attributes:
        period_s: a query begins so long after the one before it, as on a device that sleeps meanwhile; 0 for at once.
        min_seconds: for so long at least each finalist is measured, over all its pairs.
    """

    period_s: float = 0.0
    min_seconds: float = 0.0

    def queries_per_block(self, query_ms: float, effort: Effort) -> int:
        """Return how many queries a process answers before it is the other one's turn.

        Args:
            query_ms: how long one takes.
            effort: how many blocks there are.
        """
        lasts_ms = max(query_ms, 1e3 * self.period_s)
        usual = min(MOST, max(FEWEST, math.ceil(BLOCK_MS / lasts_ms)))
        return max(usual, math.ceil(1e3 * self.min_seconds / (effort.rounds * effort.blocks * lasts_ms)))


QUICK = Effort(screening=1, finalists=2, rounds=7, blocks=8)


def tune(
    side: Side,
    address: str,
    progress: Progress,
    *,
    quick: bool = False,
    must_be_target: bool = False,
    pace: Pace = Pace(),
    effort: Effort | None = None,
) -> Tuned:
    """Search session options for a model on a device.

    Args:
        side: the model.
        address: of the device.
        progress: told what goes on.
        quick: measure little: a look.
        must_be_target: whether a device that the bundle was not built for is refused.
        pace: how queries follow each other.
        effort: how much instead of what `quick` says.

    Raises:
        UsageError: the model does not run on the CPU provider, which the options are of.
        TargetError: the device cannot be reached or is not what it must be, or a process died there.
    """
    if side.session["providers"][0] != "CPUExecutionProvider":
        raise UsageError(
            f"{side.shown.given} runs on {side.session['providers'][0]}; threads, spinning and memory arena are options of "
            "CPUExecutionProvider",
            remedy="set the provider's own options in the profile",
        )
    effort = effort or (QUICK if quick else Effort())
    with tempfile.TemporaryDirectory(prefix="edgetune-tune-") as scratch:
        device = meet(side, address, Path(scratch), progress, must_be_target=must_be_target)
        present, lowered = honoured(side.session, device.environment)
        queries = queries_of(side, Path(scratch))
        raw, _ = device.measured(request_for(device, side, eval=queries, latency=PILOT))
        per_block = pace.queries_per_block(raw["models"][side.name]["latency"]["p50_ms"], effort)
        restless: dict[str, None] = {}

        def tried(some: Sequence[Candidate], rounds: int) -> list[list[Pair]]:
            plan = TrialsRequest(
                model=side.name,
                present=present,
                candidates=tuple(one.options for one in some),
                rounds=rounds,
                blocks=effort.blocks,
                queries_per_block=per_block,
                period_seconds=pace.period_s,
            )
            raw, _ = device.measured(request_for(device, side, eval=queries, trials=plan))
            restless.update(dict.fromkeys(restless_reasons(raw)))
            return [[turn[place] for turn in raw["trials"]["rounds"]] for place in range(len(some))]

        everyone = candidates(present, int(device.environment["cores"]))
        progress.line(f"trying {len(everyone)} other settings than the present one: {in_words(present)}")
        screened = [(one, pairs) for one, pairs in zip(everyone, tried(everyone, effort.screening), strict=True)]
        screened.sort(key=lambda item: _typical(item[1]))
        chosen = [one for one, _ in screened[: effort.finalists]]
        control = Candidate(words=f"{in_words(present)} (present)", options=dict(present))
        final = list(zip([control, *chosen], tried([control, *chosen], effort.rounds), strict=True))
        found = judged(device, present, final, screened, "; ".join(restless), quick=quick)
        return replace(found, lowered=tuple(lowered))


def _typical(pairs: Sequence[Pair]) -> float:
    return statistics.median(log_ratio(pair) for pair in pairs)


def judged(
    device: Device,
    present: Mapping[str, Any],
    final: Sequence[tuple[Candidate, Sequence[Pair]]],
    screened: Sequence[tuple[Candidate, Sequence[Pair]]],
    restless: str,
    *,
    quick: bool = False,
) -> Tuned:
    """Return which options are to be taken.

    Args:
        device: that measured.
        present: the present options.
        final: the finalists with their pairs; the first of them is the control.
        screened: all candidates with those of the first part.
        restless: why the device was not fit to be timed, whatever the pairs say; empty if it was.
        quick: whether little was measured.
    """
    alpha = ALPHA / max(len(final) - 1, 1)
    control, *finalists = [
        _trial(one, pairs, "control" if number == 0 else "final", alpha) for number, (one, pairs) in enumerate(final)
    ]
    finalists.sort(key=lambda trial: trial.shift.estimate)
    names = {trial.words for trial in finalists}
    others = [_trial(one, pairs, "screening", alpha) for one, pairs in screened if one.words not in names]
    best = next((trial for trial in finalists if trial.faster), None)
    reason = ""
    if restless:
        reason = restless
    elif control.shift.low > 0 or control.shift.high < 0:
        reason = "the device is too restless: the present settings come out as different from themselves"
    elif best is None:
        reason = "no other settings are faster beyond the noise"
    return Tuned(
        where=device.where,
        environment=device.environment,
        present=present,
        trials=(control, *finalists, *others),
        best=None if reason else best,
        reason=reason,
        quick=quick,
    )


def _trial(candidate: Candidate, pairs: Sequence[Pair], part: str, alpha: float) -> Trial:
    present, own = ([pair["sides"][place] for pair in pairs] for place in (0, 1))
    memory = [side["peak_memory_bytes"] for side in own if side["peak_memory_bytes"] is not None]
    return Trial(
        words=candidate.words,
        options=candidate.options,
        part=part,
        shift=hodges_lehmann([log_ratio(pair) for pair in pairs], alpha),
        present_ms=round(statistics.median(side["median_ms"] for side in present), 6),
        median_ms=round(statistics.median(side["median_ms"] for side in own), 6),
        peak_memory_bytes=int(statistics.median(memory)) if memory else None,
    )
