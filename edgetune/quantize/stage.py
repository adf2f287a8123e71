"""The stage: an fp32 ONNX file and images in, an int8 ONNX file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.artefacts import Dataset, OnnxModel, Sensitivity
from edgetune.errors import GraphError
from edgetune.files import sha256_file, write_atomic
from edgetune.onnxfile import read_metadata, write_metadata
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.floats import in_float, named_layers
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.heldout import HeldOut
from edgetune.quantize.ladder import TRAINING_BATCH, Ladder, ranged
from edgetune.quantize.parity import onnx_parity
from edgetune.quantize.placement import to_qdq
from edgetune.quantize.prepare import prepare
from edgetune.quantize.proof import Proof, optimised_graph
from edgetune.quantize.samples import Samples, draw_samples
from edgetune.quantize.sensitivity import sensitivity
from edgetune.quantize.spread import other_samplings
from edgetune.quantize.timing import local_bench, timer_on

if TYPE_CHECKING:
    import onnx

    from edgetune.profile import Profile, Quantization
    from edgetune.progress import Progress
    from edgetune.quantize.timing import Bench
    from edgetune.recipe import QuantizeRecipe

__all__ = ["quantize", "rank_layers"]

TIMED_IMAGES = 16
NOT_FUSED = "quantized, but ONNX Runtime has no integer kernel for it in this form"


def quantize(
    source: OnnxModel,
    dataset: Dataset,
    recipe: QuantizeRecipe,
    profile: Profile,
    *,
    seed: int,
    folder: Path,
    progress: Progress,
    agreement_percent: float | None = None,
    bench: Bench | None = None,
) -> OnnxModel:
    """Quantize an fp32 ONNX classifier as the target's kernels want it.

    Args:
        source: the fp32 model; it keeps the contract of the input and output.
        dataset: the train images calibrate, the test images measure the parity.
        recipe: how many images, which ranges, which corrections.
        profile: the types and the session that the target runs.
        seed: draws the images, and the batches that are learnt from.
        folder: where `model.onnx` is written.
        progress: told of each step.
        agreement_percent: tolerance: decisions that must be the same as those of fp32; the profile's if None.
        bench: measures latency on the target; None for this machine, where it is the target.

    Raises:
        DataError: no train image is left to calibrate with.
        GraphError: the graph has no layer that can be quantized, or is of a form that cannot be.
    """
    import onnx

    model = onnx.load(source.path)
    learnable = recipe.training_steps * TRAINING_BATCH if recipe.effort == "max" else 0
    samples = draw_samples(dataset, recipe, seed, learnable=learnable)
    ladder = Ladder(
        recipe=recipe,
        agreement_percent=agreement_percent or profile.tolerance.top1_agreement_percent,
        samples=samples,
        held_out=_held_out(samples, model, source, profile),
        timer=timer_on(bench or local_bench(profile), samples.read(samples.calibration[:TIMED_IMAGES])),
        seed=seed,
        scratch=folder,
        progress=progress,
    )
    rules = profile.quantization
    others = [rules.with_types(types) for types in rules.alternatives]
    prepared = [_prepared(model, recipe, one) for one in (rules, *others)]
    graph = ladder.climb(prepared[0], prepared[1:])
    used = next(one for one in prepared if one.rules == graph.rules)
    spread = None if recipe.effort == "fast" else other_samplings(ladder, used)
    model = to_qdq(graph)
    provenance = read_metadata(model).provenance
    write_metadata(model, source.heads, source.preprocessing, {**provenance, "fp32_sha256": source.sha256})
    path = folder / "model.onnx"
    write_atomic(path, model.SerializeToString(deterministic=True))
    described = _described(path, model, source, dataset, profile, graph, ladder)
    return described.model_copy(update={"spread": spread}).at(folder)


def rank_layers(
    source: OnnxModel, dataset: Dataset, recipe: QuantizeRecipe, profile: Profile, *, seed: int, progress: Progress
) -> Sensitivity:
    """Return what damage each layer of an fp32 model does alone in integers, the largest first; see `quantize`.

    The images are those that would calibrate and be held out by `quantize`.
    """
    import onnx

    model = onnx.load(source.path)
    samples = draw_samples(dataset, recipe, seed, learnable=0)
    held_out = _held_out(samples, model, source, profile)
    graph = ranged(_prepared(model, recipe, profile.quantization), samples, recipe, progress)
    found = sensitivity(graph, held_out, progress)
    return Sensitivity(
        images=len(held_out.images),
        all_layers=held_out.score(graph).to_json(),
        layers=tuple({"layer": one.layer, "operator": one.operator, **one.score.to_json()} for one in found),
        warnings=samples.warnings,
    )


def _held_out(samples: Samples, model: onnx.ModelProto, source: OnnxModel, profile: Profile) -> HeldOut:
    rows = list(samples.held_out)
    return HeldOut(
        images=samples.read(rows),
        model=model,
        heads=source.heads,
        config=profile.runtime.config,
        labels=samples.dataset.labels("train")[rows] if source.is_classifier else None,
    )


def _prepared(model: onnx.ModelProto, recipe: QuantizeRecipe, rules: Quantization) -> QuantGraph:
    """Return the graph that the ladder starts from, without the layers that the recipe wants in float."""
    graph = prepare(model, rules)
    wanted = named_layers(graph, recipe.float_layers)
    if len(wanted) == len(graph.layers()):
        raise GraphError(
            "quantize.float_layers leaves every layer in float", remedy="name fewer, or set quantize.precision = fp32"
        )
    return integer_entry(in_float(graph, dict.fromkeys(wanted, "the recipe wants it in float")))


def _described(
    path: Path,
    model: onnx.ModelProto,
    source: OnnxModel,
    dataset: Dataset,
    profile: Profile,
    graph: QuantGraph,
    ladder: Ladder,
) -> OnnxModel:
    """Return the value of the stage: the file, its parity with fp32, and what the runtime makes of it."""
    proof = optimised_graph(path, profile.runtime)
    unexpected, expected = _float_layers(graph, proof)
    warnings = (*ladder.samples.warnings, *ladder.warnings)
    if unexpected:
        warnings = (*warnings, f"ONNX Runtime still computes {len(unexpected)} layers in float: {', '.join(unexpected[:5])}")
    if proof.rounded_by_runtime:
        names = ", ".join(proof.rounded_by_runtime)
        warnings = (*warnings, f"ONNX Runtime computes layers in integers that are left in float: {names}")
    return OnnxModel(
        stage_name="quantize",
        precision="int8",
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        ir_version=model.ir_version,
        classes=source.classes,
        heads=source.heads,
        preprocessing=source.preprocessing,
        parity=onnx_parity(source, path, dataset),
        steps=graph.steps,
        rungs=ladder.report(),
        float_nodes=(*(f"{name}: {NOT_FUSED}" for name in unexpected), *expected),
        operators=proof.operators,
        macs=source.macs,
        warnings=warnings,
    ).at(path.parent)


def _float_layers(graph: QuantGraph, proof: Proof) -> tuple[list[str], list[str]]:
    """Return the layers that the runtime computes in float although they are quantized, and the others with the reason."""
    unexpected = dict.fromkeys(name for name in proof.float_layers if name not in graph.left_float)
    return list(unexpected), [f"{name}: {why}" for name, why in graph.left_float.items()]
