"""The loop that people write: AdamW, one-cycle, cross-entropy, torchvision's loader and transforms, nothing else.

    python tools/plain_training.py FOLDER --size 96 --epochs 5 --seed 0

FOLDER has train/CLASS/* and test/CLASS/*. The backbone is Lite0 with its ImageNet weights. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from edgetune.recipe import ModelRecipe
from edgetune.train.network import NetworkSpec, create_network
from edgetune.train.weights import load_into, resolve

BACKBONE = "tf_efficientnet_lite0"


def opened(path: str) -> Image.Image:
    """Return a picture as RGB, what is transparent in white."""
    image = Image.open(path).convert("RGBA")
    ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
    ground.alpha_composite(image)
    return ground.convert("RGB")


def loaders(folder: Path, size: int, batch_size: int, workers: int) -> tuple[Any, Any, int]:
    """Return the loaders of train and test images, and the number of classes."""
    normalise = [transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    views = [transforms.RandomResizedCrop(size, scale=(0.7, 1.0)), transforms.RandomHorizontalFlip(), *normalise]
    train = datasets.ImageFolder(str(folder / "train"), transforms.Compose(views), loader=opened)
    plain = [transforms.Resize(size), transforms.CenterCrop(size), *normalise]
    test = datasets.ImageFolder(str(folder / "test"), transforms.Compose(plain), loader=opened)
    drop = len(train) >= batch_size
    return (
        DataLoader(train, batch_size, shuffle=True, num_workers=workers, drop_last=drop, persistent_workers=True),
        DataLoader(test, batch_size, num_workers=workers),
        len(train.classes),
    )


def network(classes: int) -> torch.nn.Module:
    """Return the pretrained backbone with a fresh head."""
    spec = NetworkSpec(backbone=BACKBONE)
    built = create_network(spec, classes)
    load_into(built, resolve(ModelRecipe(backbone=BACKBONE)), spec)
    return built


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    train, test, classes = loaders(options.folder, options.size, options.batch_size, options.workers)
    model = network(classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    steps = len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, epochs=options.epochs, steps_per_epoch=steps)
    began = time.perf_counter()
    for _ in range(options.epochs):
        model.train()
        for images, labels in train:
            loss = F.cross_entropy(model(images.to(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    seconds = time.perf_counter() - began
    model.eval()
    hits = count = 0
    with torch.inference_mode():
        for images, labels in test:
            hits += int((model(images.to(memory_format=torch.channels_last)).argmax(dim=1) == labels).sum())
            count += len(labels)
    print(json.dumps({"top1_percent": 100 * hits / count, "train_seconds": seconds}))


if __name__ == "__main__":
    main()
