"""Measures whether what quantization-aware training simulates in torch is what ONNX Runtime then computes in integers.

    python tools/bench_simulation.py RUN --steps 100

RUN is a folder that `edgetune export` or `build` left. Ranges, bias correction and so many steps of training are done anew;
then the trained graph decides on the test images three times: simulated in torch, in ONNX Runtime as it optimises the file, and
in ONNX Runtime without optimisation. Prints how often each pair agrees, how far the logits are apart beside what quantization
moved them, and the seconds of a step.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch

from bench_quantize import stored
from edgetune.artefacts import Dataset, OnnxModel
from edgetune.cli.console import Plain
from edgetune.numeric import head_nmse
from edgetune.profile import load_profile
from edgetune.quantize.bias import with_own_biases
from edgetune.quantize.entry import integer_entry
from edgetune.quantize.graph import QuantGraph
from edgetune.quantize.heldout import HeldOut
from edgetune.quantize.ladder import TRAINING_BATCH, Ladder
from edgetune.quantize.placement import to_qdq
from edgetune.quantize.prepare import prepare
from edgetune.quantize.samples import draw_samples
from edgetune.quantize.torchgraph import TorchGraph
from edgetune.recipe import Recipe
from int8_figures import AT_ONCE

Logits = npt.NDArray[np.float32]


def trained_graph(source: OnnxModel, dataset: Dataset, recipe: Recipe, steps: int) -> tuple[QuantGraph, float]:
    """Return a quantized graph after so many steps of training, and the seconds of a step."""
    wanted = recipe.quantize.model_copy(update={"effort": "max", "training_steps": steps})
    profile = load_profile(recipe.target)
    model = onnx.load(source.path)
    samples = draw_samples(dataset, wanted, recipe.seed, learnable=steps * TRAINING_BATCH)
    held_out = HeldOut(images=samples.read(list(samples.held_out)), model=model, heads=source.heads, config={})
    with tempfile.TemporaryDirectory() as scratch:
        ladder = Ladder(
            recipe=wanted,
            agreement_percent=95.0,
            samples=samples,
            held_out=held_out,
            timer=None,
            seed=recipe.seed,
            scratch=Path(scratch),
            progress=Plain(sys.stderr),
        )
        graph = ladder.corrected(ladder.ranged(integer_entry(prepare(model, profile.quantization))))
        began = time.perf_counter()
        graph = ladder.trained(graph)
        return graph, (time.perf_counter() - began) / steps


def simulated(graph: QuantGraph, images: npt.NDArray[np.uint8]) -> Logits:
    """Return the logits as training sees them: float32 `[N, C]`."""
    graph = with_own_biases(graph)
    source, target = graph.model.graph.input[0].name, graph.model.graph.output[0].name
    module = TorchGraph(graph, list(graph.model.graph.node), source, target, output_step=1.0)
    with torch.no_grad():
        parts = [module(torch.from_numpy(images[first : first + AT_ONCE])) for first in range(0, len(images), AT_ONCE)]
    return torch.cat(parts).numpy()


def computed(model: onnx.ModelProto, images: npt.NDArray[np.uint8], *, optimised: bool) -> Logits:
    """Return the logits of a model in ONNX Runtime: float32 `[N, C]`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    parts = [images[first : first + AT_ONCE] for first in range(0, len(images), AT_ONCE)]
    return np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])


def main() -> None:
    """Train, run three times, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    recipe = Recipe.load(options.run / "recipe.toml")
    source = stored(options.run, ("export", "import"), OnnxModel)
    dataset = stored(options.run, ("labels", "data"), Dataset)
    graph, seconds = trained_graph(source, dataset, recipe, options.steps)
    images = np.array(dataset.images("test"))
    found = {"torch": simulated(graph, images)}
    found["ONNX Runtime"] = computed(to_qdq(graph), images, optimised=True)
    found["unoptimised"] = computed(to_qdq(graph), images, optimised=False)
    found["fp32"] = computed(onnx.load(source.path), images, optimised=True)
    for first, second in (("torch", "ONNX Runtime"), ("unoptimised", "ONNX Runtime"), ("fp32", "ONNX Runtime")):
        same = 100 * float((found[first].argmax(axis=1) == found[second].argmax(axis=1)).mean())
        (nmse,) = head_nmse(found[second], found[first], source.heads).values()
        print(f"{first:<12} against {second}: the same top-1 {same:.2f} %, NMSE {nmse:.2e} ({len(images)} images)")
    print(f"{seconds:.2f} s a step of {TRAINING_BATCH} images")


if __name__ == "__main__":
    main()
