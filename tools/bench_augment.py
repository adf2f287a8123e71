"""Measure batched random views against torchvision.transforms.v2 on one image after the other: images per second, their ratio.

python tools/bench_augment.py [--size PIXELS] [--batch IMAGES] [--policy NAME] [--device DEVICE] [--threads N] [--repeats N]

Both make views at the same settings from the same bytes in memory, as float32 batches. They are timed in turn.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import AugmentRecipe


def torchvision_of(recipe: AugmentRecipe, size: int) -> Any:
    """Return what torchvision has for the recipe, for uint8 `[3, h, w]`."""
    import torch
    from torchvision.transforms import InterpolationMode, v2

    changes: list[Any] = [
        # torchvision's ratio is that of the sides, as `aspect` is.
        v2.RandomResizedCrop(
            size, scale=(recipe.crop_min_area, 1.0), ratio=(1 / recipe.aspect, recipe.aspect), antialias=False
        ),
        v2.RandomHorizontalFlip(),
        v2.RandomRotation(recipe.rotation_degrees, interpolation=InterpolationMode.BILINEAR),
        v2.ColorJitter(recipe.brightness, recipe.contrast, recipe.saturation),
    ]
    if recipe.policy == "randaugment":
        changes.append(
            v2.RandAugment(recipe.policy_operations, int(recipe.policy_magnitude), interpolation=InterpolationMode.BILINEAR)
        )
    if recipe.policy == "trivialaugment":
        changes.append(v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR))
    return v2.Compose([*changes, v2.ToDtype(torch.float32, scale=True)])


def seconds(work: Callable[[], torch.Tensor]) -> float:
    """Return how long some work takes, its results waited for."""
    import torch

    started = time.perf_counter()
    if work().is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Time both in turn and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--policy", choices=("none", "randaugment", "trivialaugment"), default="none")
    parser.add_argument("--device", default="cpu", help="of the batched views; torchvision's are made where a loader's are")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()

    import torch

    from edgetune.determinism import keep_freed_memory
    from edgetune.recipe import AugmentRecipe
    from edgetune.train.augment import augment, draw

    keep_freed_memory()
    torch.set_num_threads(options.threads)
    recipe = AugmentRecipe(flip=True, policy=options.policy)
    source = math.ceil(options.size * 8 / 7)
    images = torch.randint(256, (options.batch, source, source, 3), dtype=torch.uint8)
    draws = draw(10 * options.batch, recipe, torch.Generator().manual_seed(0))
    change = torchvision_of(recipe, options.size)

    def batched() -> torch.Tensor:
        rows = torch.randperm(len(draws))[: options.batch]
        return augment(images.to(options.device), draws.take(rows), recipe, (options.size, options.size))

    def one_by_one() -> torch.Tensor:
        return torch.stack([change(image.permute(2, 0, 1)) for image in images])

    found: dict[str, list[float]] = {"torchvision": [], "edgetune": []}
    for repeat in range(options.repeats + 1):
        for name, work in (("torchvision", one_by_one), ("edgetune", batched)):
            speed = options.batch / seconds(work)
            if repeat:  # The first time warms up.
                found[name].append(speed)
    for name, speeds in found.items():
        print(f"{name:>11}: {statistics.median(speeds):.0f} images/s")
    ratios = [ours / theirs for ours, theirs in zip(found["edgetune"], found["torchvision"], strict=True)]
    print(f"      ratio: {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f} in {options.repeats} pairs)")


if __name__ == "__main__":
    main()
