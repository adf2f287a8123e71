"""Who is compared by `bench_quantize.py`: edgetune's efforts and the peers, all given the same fp32 file and images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune.artefacts import Dataset, OnnxModel
from edgetune.cli.console import Plain
from edgetune.profile import Profile
from edgetune.recipe import Recipe

__all__ = ["EDGETUNE", "ONNXRUNTIME", "PEERS", "Made", "Peer", "by_peer", "ours", "peers_of"]

EDGETUNE = "edgetune"
ONNXRUNTIME = "ort"
"""The peer that needs no environment of its own."""
SCRIPTS = Path(__file__).parent / "peers"
TOLD = 300
"""Characters of what a peer that failed had to say."""


@dataclass(frozen=True)
class Peer:
    """A way to call a peer: its name in the table, its script below `peers/`, the script's options."""

    name: str
    script: str
    options: tuple[str, ...] = ()


PEERS: Mapping[str, tuple[Peer, ...]] = {
    ONNXRUNTIME: (
        Peer("ORT quantize_static, its defaults", "ort_static.py"),
        Peer("ORT quantize_static, U8S8 per channel", "ort_static.py", ("--per-channel",)),
    ),
    "nncf": (
        Peer("NNCF, fast bias correction", "nncf_ptq.py"),
        Peer("NNCF, full bias correction", "nncf_ptq.py", ("--full-bias-correction",)),
    ),
    "aimet": (
        Peer("AIMET, PTQ defaults", "aimet_ptq.py"),
        Peer("AIMET, cross-layer equalisation", "aimet_ptq.py", ("--equalize",)),
        Peer("AIMET, TF-enhanced ranges", "aimet_ptq.py", ("--tf-enhanced",)),
    ),
    "inc": (Peer("onnx-neural-compressor, U8S8 per channel", "inc_ptq.py"),),
}
"""By what `--peers NAME=PYTHON` calls them."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a quantizer made, or why it did not.

    Attributes:
        name: of the quantizer, as the table has it.
        path: the int8 file; None if there is none.
        seconds: that it took, its imports apart.
        version: of the quantizer's package.
        failure: what it said last; empty if it did not fail.
        left_float: what edgetune left in float, with the reasons.
    """

    name: str
    path: Path | None
    seconds: float = 0.0
    version: str = ""
    failure: str = ""
    left_float: tuple[str, ...] = ()


def peers_of(arguments: Sequence[str]) -> list[tuple[Peer, str]]:
    """Return the peers that `NAME=PYTHON` arguments ask for, each with its interpreter, ONNX Runtime's first.

    Raises:
        SystemExit: a name is not known, or an interpreter is not there; with all of them.
    """
    chosen = {ONNXRUNTIME: sys.executable}
    faults = []
    for argument in arguments:
        name, _, python = argument.partition("=")
        if name not in PEERS:
            faults.append(f"--peers {argument}: expected NAME=PYTHON, with one of {', '.join(PEERS)} as NAME")
        elif not os.access(python, os.X_OK):
            faults.append(f"--peers {argument}: {python or 'nothing'} cannot be run; give the interpreter of the peer's venv")
        else:
            chosen[name] = python
    if faults:
        raise SystemExit("\n".join(faults))
    return [(peer, python) for name, python in chosen.items() for peer in PEERS[name]]


def by_peer(peer: Peer, python: str, fp32: Path, calibration: Path, output: Path, timeout_s: float) -> Made:
    """Quantize a file with a peer, in a process of the peer's environment.

    Args:
        peer: which.
        python: its interpreter.
        fp32: a file that keeps the contract.
        calibration: uint8 `[N, H, W, K]` as .npy.
        output: where the int8 file is written.
        timeout_s: after so many seconds it has failed.
    """
    line = [python, str(SCRIPTS / peer.script), str(fp32), str(calibration), str(output), *peer.options]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return Made(name=peer.name, path=None, failure=f"not done after {timeout_s:.0f} s")
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["nothing"]
        return Made(name=peer.name, path=None, failure=f"exit code {done.returncode}: {said[-1][:TOLD]}")
    facts = json.loads(done.stdout.strip().splitlines()[-1])
    return Made(name=peer.name, path=output, seconds=facts["seconds"], version=facts["version"])


def ours(
    effort: str, source: OnnxModel, dataset: Dataset, profile: Profile, settings: Sequence[str], *, seed: int, folder: Path
) -> Made:
    """Quantize a file with edgetune, in this process.

    Args:
        effort: `quantize.effort`.
        source: the fp32 file.
        dataset: its train images calibrate.
        profile: the target.
        settings: more keys of the recipe, as `--set` of the command line.
        seed: draws the calibration images.
        folder: where `model.onnx` is written.

    Raises:
        RecipeError: a setting is none; what else edgetune raises is a failure to be recorded, by its caller.
    """
    import edgetune
    from edgetune.quantize.stage import quantize

    recipe = Recipe.load(None, [f"quantize.effort={effort}", *settings]).quantize
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    model = quantize(source, dataset, recipe, profile, seed=seed, folder=folder, progress=Plain(sys.stderr))
    seconds = time.perf_counter() - began
    return Made(
        name=f"{EDGETUNE}, {effort}",
        path=model.path,
        seconds=seconds,
        version=edgetune.__version__,
        left_float=model.float_nodes,
    )
