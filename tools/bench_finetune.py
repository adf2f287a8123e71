"""Measures fine-tuning against the plain loop and against fastai: test top-1 and wall-clock time, over seeds.

    python tools/bench_finetune.py FOLDER --size 96 --seeds 0 1 2 [--fastai PYTHON]

FOLDER has train/, val/ and test/ with a folder per class. All train Lite0 from the same weights for as many epochs over all
layers. Each run is a process of its own, and the methods take turns. edgetune's time is that of the whole command in a new run
folder: decoding, checking the images, linear probe, fine-tuning; that of the others is their whole command, too. Takes about
ten minutes a seed on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from training_runs import Result, command, compare, open_run, parsed, train

HERE = Path(__file__).parent


def main() -> None:
    """Run all methods for all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--fastai", metavar="PYTHON", help="An interpreter that has fastai and edgetune.")
    options = parser.parse_args()
    others = {"plain AdamW + one-cycle": [sys.executable, str(HERE / "plain_training.py")]}
    if options.fastai:
        others["fastai fine_tune"] = [options.fastai, str(HERE / "fastai_training.py")]
    results: dict[str, list[Result]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in options.seeds:
            output = Path(scratch) / f"seed-{seed}"
            settings = [f"data.source={options.folder.resolve()}", f"data.image_size={options.size}", f"seed={seed}"]
            results.setdefault("edgetune train", []).append(train(output, settings))
            epochs = open_run(output, settings).checkpoint.settings["epochs"]
            for name, line in others.items():
                arguments = [str(options.folder), "--size", str(options.size), "--epochs", str(epochs), "--seed", str(seed)]
                seconds, said = command([*line, *arguments])
                results.setdefault(name, []).append(Result(parsed(said)["top1_percent"], seconds))
            print(f"after seed {seed}, {epochs} epochs:")
            compare(results, "plain AdamW + one-cycle")


if __name__ == "__main__":
    main()
