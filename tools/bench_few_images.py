"""Measures fine-tuning on few images: the default (linear probe, then all layers) against plain full fine-tuning.

    python tools/bench_few_images.py FOLDER --size 96 --per-class 10 --seeds 0 1 2

Each seed draws its own images of each class from train/; val/ and test/ stay whole. Plain full fine-tuning is strategy `full`
from a fresh head, without layer-wise rates, label smoothing, average of weights or frozen batch norms, for as many epochs.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
from pathlib import Path

from training_runs import Result, compare, train

PLAIN = (
    "train.strategy=full",
    "train.layer_decay=1.0",
    "train.label_smoothing=0.0",
    "train.ema_epochs=0.0",
    "train.average_epochs=false",
    "train.batch_norm=adapt",
    "train.weight_decay=0.01",
    "train.augment.rotation_degrees=0",
    "train.augment.brightness=0",
    "train.augment.contrast=0",
    "train.augment.saturation=0",
    "model.drop_rate=0.0",
)


def cut_down(folder: Path, target: Path, per_class: int, seed: int) -> None:
    """Copy a folder with only so many train images of each class."""
    for split in ("val", "test"):
        shutil.copytree(folder / split, target / split)
    for group in sorted(path for path in (folder / "train").iterdir() if path.is_dir()):
        chosen = random.Random(seed).sample(sorted(group.iterdir()), per_class)
        (target / "train" / group.name).mkdir(parents=True)
        for path in chosen:
            shutil.copy(path, target / "train" / group.name)


def main() -> None:
    """Run all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    results: dict[str, list[Result]] = {}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            few = Path(scratch) / "images"
            cut_down(options.folder, few, options.per_class, seed)
            settings = [f"data.source={few}", f"data.image_size={options.size}", f"seed={seed}"]
            for name, more in (("default: lp-ft", ()), ("plain full fine-tuning", PLAIN)):
                results.setdefault(name, []).append(train(Path(scratch) / "run", [*settings, *more]))
        print(f"after seed {seed}:")
        compare(results, "plain full fine-tuning")


if __name__ == "__main__":
    main()
