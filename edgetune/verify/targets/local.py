"""This machine as the target: the runner in a process of its own, as it would run on a board."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from edgetune.errors import ArtefactError, TargetError
from edgetune.progress import Progress
from edgetune.verify.targets.interface import Request
from edgetune.verify.targets.outcome import ending, read_answer

__all__ = ["LocalTarget"]

ENVIRONMENT_DEADLINE_S = 60.0
POLL_S = 0.2


class LocalTarget:
    """Measures on this machine.

    Args:
        python: the interpreter that runs the runner; it needs numpy and onnxruntime.
        deadline_s: after so many seconds a measurement is ended and counts as failed.
    """

    def __init__(self, python: str = sys.executable, *, deadline_s: float = 3600.0) -> None:
        self._python = python
        self._deadline_s = deadline_s

    def describe(self) -> str:
        """Return the machine in a few words; never its host name, which says nothing about it to others."""
        return f"this machine ({platform.machine()})"

    def environment(self) -> dict[str, Any]:
        """Return this machine's environment as the interpreter of this target sees it."""
        with tempfile.TemporaryDirectory(prefix="edgetune-") as folder:
            output = self._run(["environment"], Path(folder), ENVIRONMENT_DEADLINE_S, _unheard)
        try:
            environment = json.loads(output)
        except ValueError as fault:
            raise ArtefactError(f"the runner's environment on {self.describe()} is not JSON: {fault}") from fault
        if not isinstance(environment, dict):
            raise ArtefactError(
                f"the runner's environment on {self.describe()} is a {type(environment).__name__}, not an object"
            )
        if environment.get("onnxruntime") is None:
            raise TargetError(
                f"{self._python} cannot import onnxruntime, which is to measure on {self.describe()}",
                remedy="pip install onnxruntime numpy",
            )
        return environment

    def measure(self, request: Request, folder: Path, progress: Progress) -> dict[str, Any]:
        """Run the runner on this machine; see `Target.measure`."""
        folder.mkdir(parents=True, exist_ok=True)
        # An answer of an earlier run must not pass for this one's.
        for stale in (folder / "measurement.json", *folder.glob("logits-*.npy")):
            stale.unlink(missing_ok=True)
        names = ", ".join(model.name for model in request.models)
        progress.line(f"measuring {names} on {self.describe()}")
        with tempfile.TemporaryDirectory(prefix="edgetune-") as scratch:
            asked = Path(scratch) / "request.json"
            asked.write_text(json.dumps(request.to_json()), encoding="utf-8")
            arguments = ["measure", str(asked), "--out", str(folder.resolve())]
            news = _News(request, progress)
            self._run(arguments, Path(scratch), self._deadline_s, news)
            news.end()
        return read_answer(folder, request)

    def _run(self, arguments: Sequence[str], scratch: Path, deadline_s: float, heard: Callable[[str], None]) -> str:
        """Run the zipapp in a process group of its own and return what it wrote to stdout; `heard` gets its news."""
        from edgetune.device.archive import write_runner

        runner = scratch / "runner.pyz"
        write_runner(runner)
        # Files instead of pipes: a runner that says a lot can never block on a full pipe.
        stdout, stderr = scratch / "stdout", scratch / "stderr"
        with stdout.open("wb") as out, stderr.open("wb") as err, stderr.open(encoding="utf-8", errors="replace") as news:
            command = [self._python, str(runner), *arguments]
            try:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
            except OSError as fault:
                raise TargetError(f"{self._python} cannot be run: {fault.strerror}") from fault
            try:
                returncode = _wait(process, deadline_s, news, heard)
            finally:
                _end(process)
        if returncode is None:
            raise TargetError(
                f"the runner on {self.describe()} did not end within {deadline_s:g} s and was stopped",
                remedy="measure fewer images: --set verify.test_images=N",
            )
        if error := ending(returncode, stderr.read_text(encoding="utf-8", errors="replace"), self.describe()):
            raise error
        return stdout.read_text(encoding="utf-8", errors="replace")


class _News:
    """Turns what the runner says into steps of a progress display: it names each step as it begins."""

    def __init__(self, request: Request, progress: Progress) -> None:
        per_model = int(request.footprint) + int(request.eval is not None)
        self._total = per_model * len(request.models) + int(request.latency is not None)
        self._total += request.pairs.pairs if request.pairs else 0
        self._begun = 0
        self._progress = progress

    def __call__(self, line: str) -> None:
        self._progress.advance("measure", min(self._begun, self._total), self._total, line)
        self._begun += 1

    def end(self) -> None:
        """Say that all steps are done."""
        self._progress.advance("measure", self._total, self._total)


def _unheard(line: str) -> None:
    """Drop the news."""


def _wait(process: subprocess.Popen[bytes], deadline_s: float, news: TextIO, heard: Callable[[str], None]) -> int | None:
    """Return the exit code, or None once the deadline has passed; hand on the news meanwhile."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            return process.wait(min(POLL_S, max(0.0, end - time.monotonic())))
        except subprocess.TimeoutExpired:
            for line in news.read().splitlines():
                heard(line)
    return process.poll()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no runner behind, whatever ended the wait: a deadline, a signal to this process, or nothing at all."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
