"""Measures training throughput, end to end, against a loop like torchvision's reference: images per second, and their ratio.

    python tools/bench_throughput.py FOLDER --size 96 --steps 30 --repeats 3
    python tools/bench_throughput.py FOLDER --size 96 --steps 100 --repeats 3 --device cuda --workers 16

Both train Lite0 at the same settings: batches of 64, a random crop and a mirror, AdamW, batch norms that follow the images, no
average of weights. The other reads encoded files with ImageFolder, DataLoader (two workers by default) and torchvision's
transforms, with NCHW images, as torchvision's reference scripts do. Ours reads its cache of decoded images; decoding that once
is timed, too, and said apart. On a GPU the other computes in float32, ours in the layout and precision that it measures to be
fastest there, unless `--set train.amp=float32`. The two take turns, each in a process of its own, so that neither disturbs the
other's threads.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

BATCH = 64
WARMUP = 5


def finished(device: str) -> float:
    """Return the time once the device has done all that it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reference(folder: Path, size: int, steps: int, device: str, workers: int) -> float:
    """Return the images per second of the loop that people write."""
    import torch
    import torch.nn.functional as F

    from plain_training import loaders, network

    train, _, classes = loaders(folder, size, BATCH, workers)
    model = network(classes).to(memory_format=torch.contiguous_format).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    began, done = 0.0, 0
    while True:
        for images, labels in train:
            if done == WARMUP:
                began = finished(device)
            loss = F.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
            if done == WARMUP + steps:
                return steps * BATCH / (finished(device) - began)


def ours(output: Path, settings: list[str], steps: int, device_name: str) -> float:
    """Return the images per second of edgetune's loop."""
    import torch

    from edgetune.determinism import deterministic
    from edgetune.progress import Silent
    from edgetune.recipe import Recipe
    from edgetune.train.job import TrainJob
    from edgetune.train.opening import decided, opened
    from edgetune.train.setting import resolved_threads
    from edgetune.train.start import load_start
    from training_runs import prepared

    recipe, dataset, device = Recipe.load(None, settings), prepared(output, settings), torch.device(device_name)
    job = TrainJob(dataset=dataset, model=recipe.model, recipe=recipe.train, seed=0, key="", folder=output)
    with deterministic(resolved_threads(recipe.train), 0, device):
        start = load_start(recipe.model, dataset, "any", device)
        run = opened(job, start, decided(recipe.train, dataset, Silent(), fitting=True), device, Silent())
        run.learner.open_epoch(0, 1)
        began, done, epoch = 0.0, 0, 0
        while True:
            for batch in run.feed.stream(epoch, epoch, 0):
                if done == WARMUP:
                    began = finished(device_name)
                run.learner.step(batch, 1.0)
                done += 1
                if done == WARMUP + steps:
                    return steps * BATCH / (finished(device_name) - began)
            epoch += 1


def main() -> None:
    """Measure both in turn and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="of the reference's loader")
    parser.add_argument("--set", dest="settings", action="append", default=[], help="a setting of ours")
    parser.add_argument("--one", choices=("ours", "reference"), help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    settings = [f"data.source={options.folder.resolve()}", f"data.image_size={options.size}", "train.batch_norm=adapt"]
    settings += [
        "train.ema_epochs=0",
        "train.augment.crop_min_area=0.7",
        "train.augment.aspect=1.33",
        "train.augment.flip=true",
    ]
    settings += [f"train.augment.{name}=0" for name in ("rotation_degrees", "brightness", "contrast", "saturation")]
    settings += ["model.drop_rate=0", "train.strategy=full", *options.settings]
    if options.one:
        if options.one == "ours":
            pace = ours(options.output, settings, options.steps, options.device)
        else:
            pace = reference(options.folder, options.size, options.steps, options.device, options.workers)
        print(json.dumps(pace))
        return
    from training_runs import prepared

    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        dataset = prepared(Path(scratch), settings)
        images = sum(dataset.counts.values())
        print(f"decoding, once: {images / (time.perf_counter() - began):.0f} images/s, with hashing and the search for copies")
        paces: dict[str, list[float]] = {"ours": [], "reference": []}
        for _ in range(options.repeats):
            for name, found in paces.items():
                line = [sys.executable, *sys.argv, "--one", name, "--output", scratch]
                done = subprocess.run(line, check=False, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                found.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(", ".join(f"{name} {found[-1]:.1f} images/s" for name, found in paces.items()))
    ratios = sorted(a / b for a, b in zip(paces["ours"], paces["reference"], strict=True))
    print(f"{median(ratios):.2f} times as fast (from {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
