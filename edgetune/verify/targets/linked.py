"""A target over any link: the runner in a process of its own, there as here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgetune.errors import ArtefactError, TargetError
from edgetune.progress import Progress
from edgetune.transport.interface import Link
from edgetune.verify.targets.interface import EvalRequest, ModelRequest, Request
from edgetune.verify.targets.outcome import ending, read_answer
from edgetune.verify.targets.site import Site, open_site

__all__ = ["LinkedTarget"]

ENVIRONMENT_DEADLINE_S = 120.0
"""A board's first import of onnxruntime may take half a minute."""
MEASURE_DEADLINE_S = 4 * 3600.0


class LinkedTarget:
    """Measures on the machine at the other end of a link.

    Args:
        link: to it; connected when it is needed, and closed after each measurement.
        deadline_s: after so many seconds a measurement is ended and counts as failed.
    """

    def __init__(self, link: Link, *, deadline_s: float = MEASURE_DEADLINE_S) -> None:
        self._link = link
        self._deadline_s = deadline_s

    def describe(self) -> str:
        """Return the machine in a few words; never its name or address, which say nothing about it to others."""
        return self._link.describe() if self._link.here else "a board over SSH"

    def environment(self) -> dict[str, Any]:
        """Return the environment of the machine as its interpreter sees it; see `Target.environment`."""
        where = self._link.describe()
        try:
            with open_site(self._link, Path(), _unheard) as site:
                output = self._run(site, ["environment"], ENVIRONMENT_DEADLINE_S, _unheard)
        finally:
            self._link.close()
        try:
            environment = json.loads(output)
        except ValueError as fault:
            raise ArtefactError(f"the runner's environment on {where} is not JSON: {fault}") from fault
        if not isinstance(environment, dict):
            raise ArtefactError(f"the runner's environment on {where} is a {type(environment).__name__}, not an object")
        if environment.get("onnxruntime") is None:
            raise TargetError(
                f"{self._link.python} cannot import onnxruntime, which is to measure on {where}",
                remedy=f"install it there: {self._link.python} -m pip install onnxruntime numpy",
            )
        return environment

    def measure(self, request: Request, folder: Path, progress: Progress) -> dict[str, Any]:
        """Run the runner on the machine; see `Target.measure`."""
        folder.mkdir(parents=True, exist_ok=True)
        # An answer of an earlier run must not pass for this one's.
        for stale in (folder / "measurement.json", *folder.glob("logits-*.npy"), *folder.glob("optimised-*.onnx")):
            stale.unlink(missing_ok=True)
        names = ", ".join(model.name for model in request.models)
        progress.line(f"measuring {names} on {self._link.describe()}")
        try:
            with open_site(self._link, folder, progress.line) as site:
                asked = site.note("request.json", json.dumps(_as_there(request, site).to_json()).encode())
                news = _News(request, progress)
                self._run(site, ["measure", asked, "--out", site.out], self._deadline_s, news)
                site.fetch("measurement.json")
                for model in request.models if request.eval else ():
                    site.fetch(f"logits-{model.name}.npy")
                if request.operators:
                    site.fetch(f"optimised-{request.operators.model}.onnx")
                news.end()
        finally:
            self._link.close()
        return read_answer(folder, request)

    def _run(self, site: Site, arguments: Sequence[str], deadline_s: float, heard: Callable[[str], None]) -> str:
        """Run the zipapp there and return what it wrote to stdout; `heard` gets its news."""
        from edgetune.device.archive import runner_bytes

        runner = site.note("runner.pyz", runner_bytes())
        command = [self._link.python, runner, *arguments]
        done = self._link.run(command, deadline_s=deadline_s, heard=heard)
        stderr = done.stderr.decode("utf-8", errors="replace")
        if error := ending(done.returncode, stderr, self._link.describe(), out_of_memory=done.out_of_memory):
            raise error
        return done.stdout.decode("utf-8", errors="replace")


def _as_there(request: Request, site: Site) -> Request:
    """Return a request whose paths are those of the machine that measures, with the files there."""
    models = tuple(
        ModelRequest(name=model.name, path=Path(site.file(model.path)), sha256=model.sha256) for model in request.models
    )
    images = request.eval and EvalRequest(images=Path(site.file(request.eval.images)), limit=request.eval.limit)
    golden = Path(site.folder(request.golden)) if request.golden else None
    return request.model_copy(update={"models": models, "eval": images, "golden": golden})


class _News:
    """Turns what the runner says into steps of a progress display: it names each step as it begins."""

    def __init__(self, request: Request, progress: Progress) -> None:
        per_model = int(request.footprint) + int(request.eval is not None) + int(request.throughput is not None)
        self._total = per_model * len(request.models) + int(request.latency is not None)
        self._total += request.pairs.pairs if request.pairs else 0
        self._total += int(request.operators is not None)
        self._total += request.trials.rounds * len(request.trials.candidates) if request.trials else 0
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
