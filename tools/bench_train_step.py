"""Measure a training step with and without keeping freed memory: images per second, interleaved processes, their ratio.

python tools/bench_train_step.py [--backbone NAME] [--size PIXELS] [--batch IMAGES] [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

STEPS = 10


def measure(backbone: str, size: int, batch: int, keep: bool) -> float:
    """Return images per second of forward, backward and update on random images."""
    import torch

    from edgetune.determinism import keep_freed_memory
    from edgetune.device.environment import processor_facts
    from edgetune.train.network import NetworkSpec, create_network

    if keep:
        keep_freed_memory()
    torch.set_num_threads(int(processor_facts()["cores"]))
    network = create_network(NetworkSpec(backbone=backbone), 10).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    images = torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch) % 10
    started = 0.0
    for step in range(STEPS + 3):
        if step == 3:
            started = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return STEPS * batch / (time.perf_counter() - started)


def parse(description: str, ways: tuple[str, str], *, repeats: int) -> argparse.Namespace:
    """Return the options of a benchmark whose child processes measure a step in one of two ways."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--child", choices=ways)
    return parser.parse_args()


def main() -> None:
    """Run pairs of child processes and print the medians."""
    options = parse(__doc__.splitlines()[0], ("keep", "return"), repeats=5)
    if options.child:
        print(measure(options.backbone, options.size, options.batch, options.child == "keep"))
        return
    speeds: dict[str, list[float]] = {"return": [], "keep": []}
    for _ in range(options.repeats):
        for child, found in speeds.items():
            command = [sys.executable, __file__, *sys.argv[1:], "--child", child]
            found.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for child, found in speeds.items():
        print(f"{child:>6} freed memory: {statistics.median(found):.0f} images/s")
    ratios = [keep / back for keep, back in zip(speeds["keep"], speeds["return"], strict=True)]
    print(f"ratio keep / return: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
