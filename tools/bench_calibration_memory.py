"""Show that quantizing takes no more memory for more calibration images: `python tools/bench_calibration_memory.py [EFFORT]`.

Fresh processes quantize the same network, with 64 images of a data set and with 4,096 of it; the peak of each is printed, and
their ratio. Exits with 1 where that is 1.10 or more. EFFORT is that of the recipe, fast unless given.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

BACKBONE = "test_efficientnet"
# A batch holds fewer images than FEW.
SIDE = 48
FEW, MANY = 64, 4096
HELD_OUT = 64
REPEATS = 2
LIMIT = 1.10
CLASSES = ("a", "b", "c", "d")


def write_dataset(folder: Path, train: int) -> None:
    """Write a data set of noise: `train` images to calibrate with, a few to compare on."""
    from edgetune.artefacts import Dataset, Preprocessing

    counts = {"train": train, "test": 32}
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        generator = np.random.default_rng(count)
        images = np.lib.format.open_memmap(folder / split / "images.npy", "w+", np.uint8, (count, SIDE, SIDE, 3))
        for index in range(count):
            images[index] = generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        np.save(folder / split / "labels.npy", np.arange(count) % len(CLASSES))
        (folder / split / "names.json").write_text(json.dumps([f"{split}/{index}" for index in range(count)]))
    value = Dataset(
        source="noise",
        classes=CLASSES,
        preprocessing=Preprocessing(SIDE, SIDE),
        source_size=(SIDE, SIDE),
        counts=counts,
        class_counts={split: (count // len(CLASSES),) * len(CLASSES) for split, count in counts.items()},
        content_digest="0" * 64,
        golden=(),
    )
    (folder / "value.json").write_text(json.dumps(value.to_json()))


def export_network(data: Path, folder: Path) -> None:
    """Write a network with random weights as `model.onnx` and its value beside it."""
    import timm
    import torch

    from edgetune.artefacts import Checkpoint, Dataset
    from edgetune.export.stage import export
    from edgetune.profile import load_profile
    from edgetune.progress import Silent
    from edgetune.recipe import ExportRecipe

    torch.manual_seed(0)
    network = timm.create_model(BACKBONE, num_classes=len(CLASSES)).eval()
    dataset = Dataset.model_validate_json((data / "value.json").read_text()).at(data)
    checkpoint = Checkpoint(
        backbone=BACKBONE,
        classes=CLASSES,
        preprocessing=dataset.preprocessing,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        weights={},
        val_metrics={},
        best_epoch=0,
        epochs=0,
    )
    folder.mkdir()
    caps = load_profile("x86-vnni").model
    recipe = ExportRecipe(parity_images=8)
    value = export(checkpoint, dataset, recipe, caps, lambda _: network, provenance={}, folder=folder, progress=Silent())
    (folder / "value.json").write_text(json.dumps(value.to_json()))


def quantize_here(source: Path, data: Path, settings: str, folder: Path) -> int:
    """Quantize in this process and return its peak of resident memory in KiB."""
    from edgetune.artefacts import Dataset, OnnxModel
    from edgetune.profile import load_profile
    from edgetune.progress import Silent
    from edgetune.quantize.stage import quantize
    from edgetune.recipe import QuantizeRecipe

    model = OnnxModel.model_validate_json((source / "value.json").read_text()).at(source)
    dataset = Dataset.model_validate_json((data / "value.json").read_text()).at(data)
    recipe = QuantizeRecipe.model_validate_json(settings)
    quantize(model, dataset, recipe, load_profile("x86-vnni"), seed=0, folder=folder, progress=Silent())
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def main(effort: str) -> None:
    """Measure each in processes of its own and print them."""
    peaks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "data", MANY + 4 * HELD_OUT)
        export_network(folder / "data", folder / "fp32")
        for images in (FEW, MANY):
            settings = json.dumps({"effort": effort, "calibration_images": images, "held_out_images": HELD_OUT})
            parts = [folder / "fp32", folder / "data", settings, folder / f"int8-{images}"]
            command = [sys.executable, __file__, *map(str, parts)]
            runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(REPEATS)]
            # The smallest: what else the machine does can only delay the return of memory.
            peaks.append(min(map(int, runs)))
            print(f"{effort}, {images:5d} calibration images: {peaks[-1] / 1024:7.1f} MiB at the peak")
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.3f}, allowed below {LIMIT:.2f}")
    sys.exit(ratio >= LIMIT)


if __name__ == "__main__":
    if len(sys.argv) <= 2:
        main(sys.argv[1] if len(sys.argv) == 2 else "fast")
    else:
        print(quantize_here(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])))
