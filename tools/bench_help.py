"""Measure how long `edgetune --help` takes: the median of 20 fresh processes, in seconds.

Usage: python tools/bench_help.py [REPEATS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time


def seconds() -> float:
    """Return the seconds of one fresh process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "edgetune", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seconds()  # The first one fills the disk cache.
    samples = [seconds() for _ in range(repeats)]
    print(f"edgetune --help: median {statistics.median(samples):.3f} s, slowest {max(samples):.3f} s of {repeats}")


if __name__ == "__main__":
    main()
