"""Compares edgetune's quantizer with its peers: same fp32 file, same calibration images, same test images, latency in turns.

    python tools/bench_quantize.py RUN --seeds 0 1 2 --peers nncf=PYTHON aimet=PYTHON inc=PYTHON
    python tools/bench_quantize.py FP32.onnx --data FOLDER --efforts fast --quick

RUN is a folder that `edgetune export` or `build` left. The calibration images are drawn by `calibration_rows`, for each seed
anew, and the peers get the very same; edgetune also looks at the train images that its recipe holds out. Each peer has an
environment of its own (`pip install nncf`, `aimet-onnx`, or `onnx-neural-compressor` and its undeclared `prettytable`) and is
called in it; ONNX Runtime's own quantizer always takes part. What a peer cannot do is a row that says so. Prints a table of
means over the seeds so far, with their extremes, in Markdown, and writes everything to a JSON file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgetune.artefacts import Artefact, Dataset, OnnxModel
from edgetune.cli.console import Plain
from edgetune.device.environment import environment
from edgetune.device.latency import LatencyPlan
from edgetune.errors import EdgetuneError
from edgetune.files import write_atomic
from edgetune.numeric import spread_rows
from edgetune.profile import Profile, load_profile
from edgetune.quantize.samples import calibration_rows
from edgetune.recipe import Recipe
from int8_figures import accuracy, latencies, logits_of, runs_as
from quantizer_table import FP32, Row, markdown
from quantizers import EDGETUNE, ONNXRUNTIME, PEERS, Made, by_peer, ours, peers_of

PER_CHANNEL = PEERS[ONNXRUNTIME][1].name
"""What speed is compared with: the fastest form that ONNX Runtime itself writes."""
LATENCY_IMAGES = 64

Value = TypeVar("Value", bound=Artefact)


@dataclass(frozen=True)
class Source:
    """What all quantizers start from."""

    fp32: OnnxModel
    dataset: Dataset
    profile: Profile


def stored(run: Path, stages: tuple[str, ...], kind: type[Value]) -> Value:
    """Return the newest value that a run folder has of the first of the stages that it has any of.

    It is read as it lies there: to open the run would train again whatever a newer edgetune keeps under another key.
    """
    for stage in stages:
        found = sorted((run / "stages" / stage).glob("*/stage.json"), key=lambda path: path.stat().st_mtime)
        if found:
            record = json.loads(found[-1].read_text(encoding="utf-8"))
            return kind.model_validate(record["value"]).at(found[-1].parent)
    raise SystemExit(f"{run} has no value of the stage {' or '.join(stages)}: run `edgetune export` there first")


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Source]:
    """Give what the command line names."""
    if options.source.is_dir():
        recipe = Recipe.load(options.source / "recipe.toml")
        profile = load_profile(options.target or recipe.target)
        fp32 = stored(options.source, ("export", "import"), OnnxModel)
        yield Source(fp32, stored(options.source, ("labels", "data"), Dataset), profile)
        return
    if options.data is None:
        raise SystemExit("a model file needs images: give --data FOLDER, or a run folder instead of the file")
    from edgetune.outside import FileRun, Given
    from edgetune.pipeline import Run

    with tempfile.TemporaryDirectory() as name:
        settings = [f"data.source={options.data.absolute()}", f"target={options.target or 'host'}"]
        run = Run.open(Recipe.load(None, settings), Path(name), Plain(sys.stderr))
        brought = FileRun.of(run, Given.of({"file": str(options.source)}))
        yield Source(brought.fp32, brought.dataset, brought.profile)


def quantized(source: Source, seed: int, folder: Path, options: argparse.Namespace) -> list[Made]:
    """Return what every quantizer makes of one draw of calibration images."""
    rows, _ = calibration_rows(source.dataset, options.images, seed)
    calibration = folder / "calibration.npy"
    np.save(calibration, source.dataset.read("train", rows))
    found = []
    settings = [f"quantize.calibration_images={options.images}", *options.settings]
    for effort in options.efforts:
        print(f"seed {seed}: {EDGETUNE}, {effort}", file=sys.stderr)
        try:
            made = ours(effort, source.fp32, source.dataset, source.profile, settings, seed=seed, folder=folder / effort)
        except EdgetuneError as fault:
            made = Made(name=f"{EDGETUNE}, {effort}", path=None, failure=str(fault).splitlines()[0])
        found.append(made)
    for number, (peer, python) in enumerate(peers_of(options.peers)):
        print(f"seed {seed}: {peer.name}", file=sys.stderr)
        output = folder / f"peer-{number}.onnx"
        found.append(by_peer(peer, python, source.fp32.path, calibration, output, options.timeout))
    return found


def measured(source: Source, made: list[Made], table: dict[str, Row], options: argparse.Namespace) -> None:
    """Add one seed's figures to the table."""
    count = source.dataset.counts["test"]
    rows = spread_rows(count, options.test_images or count)
    images = np.array(source.dataset.images("test")[rows])
    reference = logits_of(source.fp32.path, images)
    paths = {FP32: source.fp32.path}
    table[FP32].figures.append(asdict(accuracy(reference, reference, source.dataset, rows)))
    for entry in made:
        row = table[entry.name]
        row.made.append(entry)
        if entry.path is None:
            continue
        try:
            found = asdict(accuracy(reference, logits_of(entry.path, images), source.dataset, rows))
            row.figures.append({**found, **runs_as(entry.path, source.profile.runtime)})
        except Exception as fault:  # ONNX Runtime's own exceptions have no common root; a file that it refuses is a result.
            row.made[-1] = replace(entry, path=None, failure=str(fault).splitlines()[0])
        else:
            paths[entry.name] = entry.path
    times = latencies(paths, images[spread_rows(len(images), LATENCY_IMAGES)], options.plan)
    medians = {name: times[name]["round_medians_ms"] for name in paths}
    for name in paths:
        row = table[name]
        row.p50_ms.append(times[name]["p50_ms"])
        row.to_fp32 += zip(medians[name], medians[FP32], strict=True)
        row.to_ort += zip(medians[name], medians[PER_CHANNEL], strict=True) if PER_CHANNEL in medians else ()


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="RUN|FP32.onnx")
    parser.add_argument("--data", type=Path, help="Labelled images, for a model file.")
    parser.add_argument("--target", help="A profile; the run's, or this machine's.")
    parser.add_argument("--efforts", nargs="*", default=["fast", "default", "max"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Of the calibration images.")
    parser.add_argument("--images", type=int, default=256, help="Calibration images.")
    parser.add_argument("--test-images", type=int, help="So many, evenly spread; all unless given.")
    parser.add_argument("--peers", nargs="*", default=[], metavar="NAME=PYTHON", help=f"Names: {', '.join(PEERS)}.")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="Of one peer.")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="Of the recipe.")
    parser.add_argument("--quick", action="store_true", help="One seed, 16 and 64 images, few rounds: does it run at all?")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="Keep the files here.")
    parser.add_argument("--results", type=Path, default=Path("bench_quantize.json"), help="Where the JSON goes.")
    options = parser.parse_args()
    options.plan = LatencyPlan(warmup=20, rounds=32, queries_per_round=32)
    if options.quick:
        options.seeds, options.images = options.seeds[:1], 16
        options.plan = LatencyPlan(warmup=2, rounds=6, queries_per_round=4)
        options.test_images = options.test_images or 64
    peers_of(options.peers)  # A mistyped peer is refused before anything is computed.
    return options


def main() -> None:
    """Run all seeds, print the table and write the JSON."""
    options = arguments()
    table: dict[str, Row] = {}
    with opened(options) as source, tempfile.TemporaryDirectory() as scratch:
        if not source.dataset.is_classifier:
            raise SystemExit("only classifiers with a single label are compared here")
        for seed in options.seeds:
            folder = (options.keep or Path(scratch)) / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            made = quantized(source, seed, folder, options)
            for name in (FP32, *(entry.name for entry in made)):
                table.setdefault(name, Row(name))
            measured(source, made, table, options)
            facts = {"seeds": options.seeds, "images": options.images, "test_images": source.dataset.counts["test"]}
            content = {**facts, "fp32_sha256": source.fp32.sha256, "environment": environment()}
            content["rows"] = [row.to_json() for row in table.values()]
            write_atomic(options.results, json.dumps(content, indent=1).encode())
            print(markdown(table.values()), flush=True)


if __name__ == "__main__":
    main()
