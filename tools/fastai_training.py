"""fastai's `fine_tune` on the same backbone weights: its default augmentation, a frozen epoch, then all layers.

    PYTHON tools/fastai_training.py FOLDER --size 96 --epochs 5 --seed 0

PYTHON has fastai, timm and edgetune. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from fastai.vision.all import (
    ImageDataLoaders,
    Normalize,
    PILImage,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)

from edgetune.recipe import ModelRecipe
from edgetune.train.network import NetworkSpec, create_network
from edgetune.train.weights import load_into, resolve
from plain_training import BACKBONE, opened


class Picture(PILImage):  # type: ignore[misc]
    """A picture as RGB, what is transparent in white, as the other loops see it."""

    @classmethod
    def create(cls, fn: object, **_: object) -> Picture:
        """Open a file."""
        return cls(opened(str(fn)))


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    set_seed(options.seed, reproducible=True)
    views = [*aug_transforms(size=options.size), Normalize.from_stats([0.5] * 3, [0.5] * 3)]
    loaders = ImageDataLoaders.from_folder(
        options.folder,
        train="train",
        valid="test",
        item_tfms=Resize(options.size * 8 // 7),
        batch_tfms=views,
        bs=64,
        num_workers=options.workers,
        img_cls=Picture,
    )
    learner = vision_learner(loaders, BACKBONE, metrics=accuracy, pretrained=False, normalize=False)
    spec = NetworkSpec(backbone=BACKBONE)
    pretrained = create_network(spec, 2)
    load_into(pretrained, resolve(ModelRecipe(backbone=BACKBONE)), spec)
    body = learner.model[0].model
    found = {name: tensor for name, tensor in pretrained.state_dict().items() if name in body.state_dict()}
    if set(found) != set(body.state_dict()):
        raise SystemExit("the body is not the backbone")
    body.load_state_dict(found)
    began = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        # What is validated after each epoch is the test set: it is used for nothing but the last figure.
        learner.fine_tune(options.epochs, options.lr)
        seconds = time.perf_counter() - began
        top1 = float(learner.validate()[1])
    print(json.dumps({"top1_percent": 100 * top1, "train_seconds": seconds}))


if __name__ == "__main__":
    main()
