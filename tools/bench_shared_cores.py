"""Measure a training step where another process wants a core, with threads that wait awake and with ones that soon sleep.

    python tools/bench_shared_cores.py [--backbone NAME] [--size PIXELS] [--batch IMAGES] [--repeats N]

Interleaved processes, each alone and beside one that is always busy; images per second and their ratio.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from bench_train_step import measure, parse

BUSY = [sys.executable, "-c", "while True: pass"]


def child(*, briefly: bool) -> float:
    """Return what a process of its own measures: images per second."""
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, __file__, *sys.argv[1:], "--child", "briefly" if briefly else "long"]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Run pairs of child processes and print the medians."""
    options = parse(__doc__.splitlines()[0], ("briefly", "long"), repeats=3)
    if options.child:
        from edgetune.determinism import spin_briefly

        if options.child == "briefly":
            spin_briefly()
        print(measure(options.backbone, options.size, options.batch, keep=True))
        return
    for beside in (0, 1):
        busy = [subprocess.Popen(BUSY) for _ in range(beside)]
        try:
            pairs = [(child(briefly=True), child(briefly=False)) for _ in range(options.repeats)]
        finally:
            for process in busy:
                process.kill()
        ours, others = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [ours / other for ours, other in pairs]
        where = "beside a busy process" if beside else "alone"
        print(f"{where}: {ours:.0f} images/s where threads soon sleep, {others:.0f} where they wait awake")
        print(f"  ratio: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
