"""How long `runner.pyz info` takes beside a bare `import onnxruntime, numpy`, in interleaved runs; the aim is at most 1.3x.

python tools/bench_runner_start.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgetune.device.archive import write_runner


def seconds(command: list[str]) -> float:
    """Return how long a command took; it must succeed."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    """Print the medians and their ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory() as folder:
        runner = Path(folder) / "runner.pyz"
        write_runner(runner)
        bare = [sys.executable, "-c", "import onnxruntime, numpy"]
        info = [sys.executable, str(runner), "info"]
        pairs = [(seconds(bare), seconds(info)) for _ in range(rounds + 1)][1:]
    imports, starts = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(start / bare_s for bare_s, start in pairs)
    print(f"import onnxruntime, numpy  {imports * 1e3:7.1f} ms")
    print(f"runner.pyz info            {starts * 1e3:7.1f} ms")
    print(f"ratio                      {ratio:7.2f}")


if __name__ == "__main__":
    main()
