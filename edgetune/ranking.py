"""Which backbone for which images on which board: every candidate's linear probe against its latency.

A candidate takes two stages of the run's cache: `probe`, a head fitted to the cached features of the frozen backbone and scored
on the validation set, and `cost`, the network built, quantized and timed, which needs no trained weights. The test set decides
nothing here.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgetune.artefacts import Candidate, Checkpoint, Cost, Measurement, OnnxModel, ProbeScore, Ranking, Timing
from edgetune.errors import ArtefactError, EdgetuneError, Fault, GraphError, TargetError, UsageError, WeightsError
from edgetune.features import features_of, functions_of, machine_of
from edgetune.files import write_json
from edgetune.keys import NAMES, NOT_THE_IMAGES, REVISIONS, versions
from edgetune.pipeline import Run
from edgetune.progress import Progress
from edgetune.recipe import ModelRecipe
from edgetune.reducing import bench_of
from edgetune.stagecache import identity

if TYPE_CHECKING:
    from torch import nn

__all__ = ["rank"]

# Ranges and biases do not change how long a graph takes, and learning on random weights tells nothing. A float stem may make
# what is built faster still: all candidates are held against each other without one.
QUICK_QUANTIZE: dict[str, Any] = {"effort": "fast", "calibration_images": 16, "ranges": "minmax", "bias_correction": False}
QUICK_EXPORT: dict[str, Any] = {"parity_images": 3}
OWN_FAULTS = (WeightsError, GraphError, TargetError, ArtefactError)
"""What one candidate may fail with while the next one does not."""
METRICS = {"single-label": "top-1 %", "multi-label": "mAP %", "regression": "100 R²"}

Value = TypeVar("Value")


def rank(run: Run, names: Sequence[str], *, remeasure: bool = False) -> Ranking:
    """Try backbones on a run's images and for its target, and write `ranking.json` and `ranking.png` into its folder.

    A candidate whose weights are not on this machine is timed but not scored; nothing is fetched. One that fails is said and
    does not end the others.

    Args:
        run: its recipe says which images, which target, and how the ends of the networks are to be; `model.weights = none`
            scores random weights instead of pretrained ones.
        names: of the backbones.
        remeasure: forget the latencies that earlier rankings left in the run's folder.

    Raises:
        UsageError: `model.weights` is the file of one backbone.
        EdgetuneError: no candidate could be scored or timed; of the class of the first one's fault.
    """
    from edgetune.report.front import draw_front, in_words

    weights = run.recipe.model.weights
    if weights not in ("auto", "none"):
        raise UsageError(
            f"model.weights = {weights}: one file does not fit several backbones",
            remedy="rank with model.weights = auto, or none for random weights",
        )
    if remeasure:
        shutil.rmtree(run.cache.root / Cost.stage, ignore_errors=True)
    talk = _Hushed(run.progress)
    run = replace(run, progress=talk)
    _ = run.dataset  # What there is to say about the images is said aloud.
    talk.hushed = True
    candidates: list[Candidate] = []
    failures: list[EdgetuneError] = []
    for number, name in enumerate(names, start=1):
        candidates.append(_candidate(run, name, failures))
        talk.aloud(f"{number}/{len(names)} {in_words(candidates[-1])}")
    if failures and not any(one.probe or one.timing for one in candidates):
        faults = [Fault(where=one.backbone, problem="; ".join(one.faults)) for one in candidates]
        raise type(failures[0])("no candidate could be ranked", faults=faults, remedy=failures[0].remedy)
    ranking = _ranking(run, candidates)
    write_json(run.folder / "ranking.json", ranking.to_json())
    if ranking.front:
        draw_front(ranking, run.folder / "ranking.png")
    return ranking


class _Hushed:
    """Hands progress on, but keeps sentences to itself once it is hushed: a candidate has one line, not those of its stages."""

    def __init__(self, progress: Progress) -> None:
        self.aloud = progress.line
        self.advance = progress.advance
        self.hushed = False

    def line(self, text: str) -> None:
        if not self.hushed or text.startswith("warning"):
            self.aloud(text)


def _candidate(run: Run, name: str, failures: list[EdgetuneError]) -> Candidate:
    from edgetune.train.catalogue import at_hand, how_to_get

    model = run.recipe.model.model_copy(update={"backbone": name})
    faults: dict[str, None] = {}

    def tried(work: Callable[[Run, ModelRecipe], Value]) -> Value | None:
        try:
            return work(run, model)
        except OWN_FAULTS as fault:
            failures.append(fault)
            faults[_one_line(fault)] = None
        except (EdgetuneError, OSError):
            raise
        except Exception as fault:
            # timm has more than a thousand networks: one of them that no one foresaw must not end the ranking of the others.
            reason = (str(fault).splitlines() or [""])[0]
            faults[f"a bug in edgetune, please report it: {type(fault).__name__}: {reason[:200]}"] = None
        return None

    scored = model.weights == "none" or at_hand(name)
    probe = tried(_probe) if scored else None
    cost = tried(_cost)
    for precision, fault in cost.faults.items() if cost else ():
        faults[f"{precision}: {fault}"] = None
    return Candidate(backbone=name, get="" if scored else how_to_get(name), probe=probe, cost=cost, faults=tuple(faults))


def _probe(run: Run, model: ModelRecipe) -> ProbeScore:
    features = features_of(run, model)
    recipe = run.recipe.train
    depends = {
        "revision": REVISIONS["probe"],
        "features": identity(features),
        "images": identity(run.dataset, ignore=(*NOT_THE_IMAGES, *NAMES)),
        "tasks": {name: task.model_dump(mode="json") for name, task in run.recipe.tasks.items()},
        "model": model.model_dump(mode="json", exclude={"weights"}),
        "recipe": {"probe_iterations": recipe.probe_iterations, "label_smoothing": recipe.label_smoothing},
        "seed": run.recipe.seed,
        **machine_of(recipe),
    }

    def compute(_folder: Path, _key: str) -> ProbeScore:
        from edgetune.train.trial import probe_score

        functions = functions_of(run, model)
        return probe_score(
            features, run.dataset, model, recipe, functions=functions, seed=run.recipe.seed, tasks=run.recipe.tasks
        )

    return run.cache.value(ProbeScore, "probe", depends, compute)


def _cost(run: Run, model: ModelRecipe) -> Cost:
    facts = run.device_facts
    depends = {
        "revision": REVISIONS["cost"],
        "images": identity(run.dataset, ignore=(*NOT_THE_IMAGES, *NAMES)),
        "model": model.model_dump(mode="json", exclude={"weights", "weights_sha256"}),
        "opset": run.recipe.export.opset,
        "precision": run.recipe.quantize.precision,
        "profile": run.profile.model_dump(mode="json", exclude={"sources", "budget", "tolerance"}),
        "device": facts["device"],
        "seed": run.recipe.seed,
        "processor": facts["processor"],
        "versions": versions("onnxruntime", "onnx", "torch", "timm", "numpy"),
        **({"runtime": facts["versions"]} if facts["device"] != "auto" else {}),
    }

    def compute(folder: Path, _key: str) -> Cost:
        return _measured(run, model, folder)

    return run.cache.value(Cost, "cost", depends, compute)


def _measured(run: Run, model: ModelRecipe, folder: Path) -> Cost:
    """Build a network in fp32 and int8, time both, and keep the times alone."""
    from edgetune.train.trial import bare_network
    from edgetune.verify.choose import choose
    from edgetune.verify.speed import noise
    from edgetune.verify.stage import time_models

    checkpoint, network = bare_network(
        run.dataset, model, run.recipe.train, functions=functions_of(run, model), seed=run.recipe.seed
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    faults: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgetune-") as scratch:
        models = _built(run, checkpoint, network, Path(scratch), faults)
        if not models:
            return Cost(backbone=model.backbone, parameters=parameters, macs=None, faults=faults)
        found = time_models(models, run.dataset, run.profile, run.recipe.verify, folder=folder, progress=run.progress)
    sizes = {name: built.size_bytes for name, built in models.items()}
    # A build does not fall back to fp32 where int8 fails, so that such a backbone has no latency to rank by.
    choice = choose(run.recipe.quantize.precision, found, sizes) if not faults else None
    return Cost(
        backbone=model.backbone,
        parameters=parameters,
        macs=models["fp32"].macs,
        timings={name: _timing(found, name, size) for name, size in sizes.items()},
        faults=faults,
        shipped=choice.shipped if choice else None,
        reason=choice.reason if choice else "",
        noise=noise(found),
        where=found.where,
        is_target=found.is_target,
        stand_in_reason=found.stand_in_reason,
    ).at(folder)


def _built(run: Run, checkpoint: Checkpoint, network: nn.Module, scratch: Path, faults: dict[str, str]) -> dict[str, OnnxModel]:
    """Return the network in the precisions that are wanted and can be built; `faults` gets the reasons for the others."""
    from edgetune.export.stage import export
    from edgetune.quantize.stage import quantize

    recipe, built = run.recipe, dict[str, OnnxModel]()
    try:
        built["fp32"] = export(
            checkpoint,
            run.dataset,
            recipe.export.model_copy(update=QUICK_EXPORT),
            run.profile.model,
            lambda _: network,
            provenance={},
            folder=scratch / "fp32",
            progress=run.progress,
        )
        if run.wanted_precision == "int8":
            built["int8"] = quantize(
                built["fp32"],
                run.dataset,
                recipe.quantize.model_copy(update=QUICK_QUANTIZE),
                run.profile,
                seed=recipe.seed,
                bench=bench_of(run),
                folder=scratch / "int8",
                progress=run.progress,
            )
    except GraphError as fault:
        faults["int8" if built else "fp32"] = _one_line(fault)
    return built


def _timing(measurement: Measurement, name: str, size_bytes: int) -> Timing:
    latency = measurement.raw["models"][name]["latency"]
    return Timing(
        p50_ms=latency["p50_ms"],
        p90_ms=latency["p90_ms"],
        spread_percent=latency["spread_percent"],
        size_bytes=size_bytes,
    )


def _one_line(fault: EdgetuneError) -> str:
    return "; ".join([fault.message, *map(str, fault.faults)])


def _ranking(run: Run, candidates: Sequence[Candidate]) -> Ranking:
    """Return the candidates in order, with those that no other one beats and the one to take."""
    from edgetune.verify.front import pareto, recommend
    from edgetune.verify.limits import limits

    front = pareto(candidates)
    taken, reason = recommend(front, candidates, limits(run.recipe, run.profile).latency_p90_ms)
    dataset, heads = run.dataset, run.dataset.heads
    timed = next((one.cost for one in candidates if one.cost and one.cost.where), None)
    return Ranking(
        candidates=tuple(sorted(candidates, key=lambda one: one.timing.p50_ms if one.timing else math.inf)),
        front=tuple(one.backbone for one in front),
        recommended=taken.backbone if taken else None,
        reason=reason,
        metric=METRICS[heads[0].kind] if len(heads) == 1 else "mean score of the tasks",
        source=dataset.source,
        image_size=dataset.preprocessing.height,
        images=dataset.counts["val"],
        target=run.profile.title,
        where=timed.where if timed else "",
        stand_in_reason=timed.stand_in_reason if timed else "",
    )
