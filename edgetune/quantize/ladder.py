"""The ladder: steps from the cheapest to the dearest, each kept only if it brings held-out images nearer to fp32.

::

    fast      ranges → bias correction
    default   fast → layers in float where that is faster or needed → block reconstruction
    max       default → quantization-aware training

`default` ends where the graph is near enough; `max` goes all the way. What an effort does is a number of steps, never a time:
the same run gives the same bytes. (A time may be set, too; then the clock decides, and the report says so.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.device.environment import processor_facts
from edgetune.quantize.bias import correct_biases
from edgetune.quantize.calibrate import calibrate
from edgetune.quantize.equalise import equalise
from edgetune.quantize.graph import QuantGraph, Unsupported
from edgetune.quantize.heldout import HeldOut, Score
from edgetune.quantize.samples import Samples
from edgetune.quantize.weights import round_weights

if TYPE_CHECKING:
    from edgetune.progress import Progress
    from edgetune.recipe import QuantizeRecipe

__all__ = ["FP32", "TRAINING_BATCH", "Ladder", "Rung", "Timer", "ranged"]

TRAINING_BATCH = 64
CHANCE = 2
FP32 = "fp32"
NO_TARGET = "this machine is not the target, and no --device is, so that no latency can be measured"
# Other integer types are taken for a gain in speed that is no noise, and at no real cost in accuracy.
FASTER = 0.97
NO_WORSE = 1.5

Timer = Callable[[Mapping[str, QuantGraph]], Mapping[str, float]]
"""From graphs to their median latency on the target at batch 1, in ms, measured in turns."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of the ladder.

    Attributes:
        name: of the step.
        graph: that it gave.
        score: of that graph on the held-out images.
        seconds: that it took.
        kept: whether the next step goes on from it.
        note: what it found, or why it is not kept.
    """

    name: str
    graph: QuantGraph
    score: Score
    seconds: float
    kept: bool
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the step for the report."""
        facts = {"rung": self.name, **self.score.to_json(), "seconds": round(self.seconds, 1), "kept": self.kept}
        return {**facts, "note": self.note} if self.note else facts


@dataclass(kw_only=True)
class Ladder:
    """Climbs from an fp32 graph to the integer graph that an effort allows.

    Attributes:
        recipe: effort, ranges and the rest.
        agreement_percent: decisions that must be the same; where held-out images break it, layers stay in float.
        samples: the images, by what they are for.
        held_out: decides what is kept.
        timer: measures on the target; None where nothing can be measured there.
        seed: of everything drawn.
        scratch: a folder on a disk.
        progress: told of each step.
        rungs: what was climbed so far.
    """

    recipe: QuantizeRecipe
    agreement_percent: float
    samples: Samples
    held_out: HeldOut
    timer: Timer | None
    seed: int
    scratch: Path
    progress: Progress
    rungs: list[Rung] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def climb(self, prepared: QuantGraph, alternatives: Sequence[QuantGraph] = ()) -> QuantGraph:
        """Return the best graph that the effort allows.

        Args:
            prepared: in fp32, with the layers that stay in float anyway; the integers are to give what it gives.
            alternatives: the same graph for other integer types, to be taken where they are measured to be faster.
        """
        prepared = equalise(prepared, self.recipe.equalise)
        self._try("ranges", lambda: self.ranged(prepared))
        for other in alternatives:
            prepared = self._faster(prepared, equalise(other, self.recipe.equalise))
        if self.recipe.bias_correction:
            self._try("bias correction", lambda: self.corrected(self.best.graph))
        if self.recipe.effort == "fast" or self._ends():
            return self.best.graph
        from edgetune.quantize.mixed import float_stem, float_worst

        if self.recipe.mixed_precision and self.timer is None:
            self._leave_out("float stem", NO_TARGET)
        elif self.recipe.mixed_precision:
            self._try("float stem", lambda: float_stem(self))
        if not self._ends():
            self._try("reconstruction", lambda: self.reconstructed(self.best.graph, prepared))
        if self.recipe.mixed_precision and not self.meets_tolerance(self.best.score):
            self._try("float layers", lambda: float_worst(self, prepared))
        if self.recipe.effort == "max" and not self._ends():
            self._try("training", lambda: self.trained(self.best.graph))
        return self.best.graph

    def report(self) -> tuple[dict[str, Any], ...]:
        """Return every rung for the report, with its latency and that of fp32 where the target can be measured."""
        graphs = {str(index): rung.graph for index, rung in enumerate(self.rungs)}
        latency = self.timer({FP32: self.fp32, **graphs}) if self.timer else {}
        rows = []
        for index, rung in enumerate(self.rungs):
            names = {"latency_p50_ms": str(index), "fp32_latency_p50_ms": FP32} if latency else {}
            rows.append({**rung.to_json(), **{key: round(latency[name], 4) for key, name in names.items()}})
        return tuple(rows)

    @property
    def fp32(self) -> QuantGraph:
        """The model as it was given, as a graph without any grid."""
        return QuantGraph(model=self.held_out.model, rules=self.best.graph.rules)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the report must know."""
        found = []
        if not self.meets_tolerance(self.best.score):
            found.append(f"int8 decides as fp32 on {self.best.score.agreement_percent:.2f} % of held-out images only")
        if self.recipe.minutes is not None:
            found.append("quantize.minutes was given: how far the quantizer got depends on the clock")
        return tuple(found)

    @property
    def best(self) -> Rung:
        """The last rung that was kept."""
        return next(rung for rung in reversed(self.rungs) if rung.kept)

    def meets_tolerance(self, score: Score) -> bool:
        """Return whether the held-out images are decided as the target's tolerance asks."""
        images = len(self.held_out.images)
        other = round(images * (1 - score.agreement_percent / 100))
        # One or two images are chance, however few there are.
        return other <= max(CHANCE, images * (1 - self.agreement_percent / 100))

    def _ends(self) -> bool:
        """Return whether nothing more is needed, or allowed."""
        minutes = self.recipe.minutes
        if minutes is not None and time.monotonic() - self.started > 60 * minutes:
            self.progress.line(f"the time given ({minutes:g} min) is spent: no further step is tried")
            return True
        near = self.best.score.divergence <= self.recipe.near_enough
        return self.recipe.effort != "max" and near and self.meets_tolerance(self.best.score)

    def _try(self, name: str, step: Callable[[], QuantGraph]) -> None:
        """Run a step, score it, and keep it if it helps."""
        began = time.monotonic()
        try:
            graph = step()
        except Unsupported as reason:
            self._leave_out(name, f"torch is not asked to compute {reason}")
            return
        score = self.held_out.score(graph)
        before = self.best.score if self.rungs else None
        # A step that made layers float may be no nearer, and still be faster.
        kept = before is None or score.divergence < before.divergence or graph.left_float != self.best.graph.left_float
        note = str(graph.steps[-1].get("found", "")) if graph.steps else ""
        seconds = time.monotonic() - began
        self.rungs.append(Rung(name=name, graph=graph, score=score, seconds=seconds, kept=kept, note=note))
        figures = f"divergence {score.divergence:.2g}, agreement {score.agreement_percent:.2f} % on held-out images"
        self.progress.line(f"{name}: {figures}, {seconds:.1f} s" + ("" if kept else "; not kept"))

    def _faster(self, prepared: QuantGraph, other: QuantGraph) -> QuantGraph:
        """Return the one of two prepared graphs whose integers are faster on the target; the second is ranged for that."""
        name = f"ranges, {other.rules.types}"
        if self.timer is None:
            self._leave_out(name, NO_TARGET)
            return prepared
        began, before = time.monotonic(), self.best
        graph = self.ranged(other)
        score = self.held_out.score(graph)
        latency = self.timer({"before": before.graph, "other": graph})
        kept = latency["other"] < latency["before"] * FASTER and score.divergence <= before.score.divergence * NO_WORSE
        note = f"{latency['other']:.3f} ms against {latency['before']:.3f} ms with {prepared.rules.types}"
        seconds = time.monotonic() - began
        self.rungs.append(Rung(name=name, graph=graph, score=score, seconds=seconds, kept=kept, note=note))
        self.progress.line(f"{name}: {note}" + ("" if kept else "; not kept"))
        return other if kept else prepared

    def _leave_out(self, name: str, reason: str) -> None:
        """Note a step that cannot be taken here."""
        self.progress.line(f"{name}: left out, {reason}")
        best = self.best
        self.rungs.append(
            Rung(name=name, graph=best.graph, score=best.score, seconds=0.0, kept=False, note=f"left out: {reason}")
        )

    def ranged(self, graph: QuantGraph) -> QuantGraph:
        """Return the graph with grids for activations and weights."""
        return ranged(graph, self.samples, self.recipe, self.progress)

    def corrected(self, graph: QuantGraph) -> QuantGraph:
        """Return the graph with its biases corrected."""
        return correct_biases(graph, self.samples.batches(), scratch=self.scratch, progress=self.progress)

    def reconstructed(self, graph: QuantGraph, reference: QuantGraph) -> QuantGraph:
        """Return the graph with every segment learnt."""
        import torch

        from edgetune.determinism import deterministic
        from edgetune.quantize.reconstruct import Learning, reconstruct

        with deterministic(_threads(), self.seed, torch.device("cpu")):
            return reconstruct(
                graph,
                reference,
                self.samples.batches(),
                learning=Learning(steps=self.recipe.reconstruction_steps),
                seed=self.seed,
                scratch=self.scratch,
                progress=self.progress,
            )

    def trained(self, graph: QuantGraph) -> QuantGraph:
        """Return the graph, trained as a whole on the train images."""
        import torch

        from edgetune.determinism import deterministic
        from edgetune.quantize.heldout import logits_of
        from edgetune.quantize.qat import Training, train_quantized

        rows = self.samples.learnable
        logits = logits_of(self.held_out.model, (self.samples.read([row])[0] for row in rows), {})
        with deterministic(_threads(), self.seed, torch.device("cpu")):
            return train_quantized(
                graph,
                lambda places: self.samples.read([rows[place] for place in places]),
                logits,
                self.held_out.heads,
                training=Training(steps=self.recipe.training_steps, batch_size=TRAINING_BATCH),
                seed=self.seed,
                progress=self.progress,
            )


def ranged(graph: QuantGraph, samples: Samples, recipe: QuantizeRecipe, progress: Progress) -> QuantGraph:
    """Return a graph with grids for activations and weights, as a recipe wants them."""
    found = calibrate(
        graph,
        samples.batches(),
        method=recipe.ranges,
        percentile=recipe.percentile,
        progress=progress,
        total=len(samples.calibration),
    )
    return round_weights(found)


def _threads() -> int:
    """Return how many threads learning uses: all cores; sums depend on it, and so do the last bits."""
    return int(processor_facts()["cores"])
