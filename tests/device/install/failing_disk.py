"""Fail every write of an installation, one after another; run by test_disk.py as a program, which forks.

    LD_PRELOAD=failing_disk.so python failing_disk.py FOLDER STRIDE

FOLDER is one as `schedules.py` takes. Of a stride above 1 only every so many writes fail, other ones for each fault.
Prints JSON: for each fault the number of writes, and what was wrong with which.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from edgetune.device import runner
from edgetune.device.digest import check_bundle
from edgetune.device.install import activate as activating
from edgetune.device.install import back, commands
from edgetune.device.install.place import Place
from edgetune.device.install.setup import status
from edgetune.device.install.state import COMMITTED, TRYING, read_state

SHIPPER = "a" * 32
disk = ctypes.CDLL(None)
disk.disk_seen.restype = ctypes.c_long


def prove(folder: Path, seconds: float) -> dict[str, object]:
    return {"model_sha256": check_bundle(folder)["files"]["model.onnx"]["sha256"]}


def command(*arguments: str, stdin: bytes = b"") -> str:
    """Run a command of the runner as a host does, and return its stdout.

    Raises:
        SystemExit: it failed, with its exit code and stderr.
    """
    out, err = io.StringIO(), io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    with redirect_stdout(out), redirect_stderr(err):
        code = runner.main(["install", *arguments])
    if code:
        raise SystemExit(f"{code} {err.getvalue()}")
    return out.getvalue()


def install(place: Place, bundle: Path, unarmed: Callable[[Callable[[], object]], object]) -> None:
    content = (bundle / "manifest.json").read_bytes()
    begun = json.loads(command("begin", str(place.folder), "--shipper", SHIPPER, stdin=b"%d 0\n" % len(content) + content))

    def upload() -> None:
        for row in begun["needed"]:
            target = Path(begun["folder"]) / row["name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / row["name"], target)

    unarmed(upload)
    activating.is_tried = back.is_tried = lambda place: False
    command("activate", str(place.folder), begun["manifest_sha256"], "--shipper", SHIPPER)
    activating.is_tried = back.is_tried = lambda place: True
    command("confirm", str(place.folder), begun["manifest_sha256"])


def in_fork(work: Callable[[], object]) -> str:
    """Do some work in a fork; return what it says."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = str(work())
        except BaseException as fault:
            text = f"{type(fault).__name__}: {fault}"
        os.write(write, text.encode()[:60000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text


def failed(place: Place, bundle: Path, number: int, fault: int) -> str:
    """Install with the write of a number failing; return `done WRITES`, or how it ended."""
    folder = str(place.folder).encode()

    def unarmed(upload: Callable[[], object]) -> None:
        seen = disk.disk_seen()
        disk.disk_arm(b"", -1, 0)
        upload()
        disk.disk_arm(folder, number - seen if number >= seen else -1, fault)
        unarmed.before += seen

    def work() -> str:
        unarmed.before = 0
        disk.disk_arm(folder, number, fault)
        install(place, bundle, unarmed)
        return f"done {unarmed.before + disk.disk_seen()}"

    return in_fork(work)


def judge(place: Place, old: str, new: str, said: str, words: str) -> None:
    """Check what a fault has left: something whole, a message that names the cause, and a way on.

    Raises:
        RuntimeError: with what is wrong.
    """
    check_bundle(place.current)
    if place.linked() not in (old, new):
        raise RuntimeError(f"current leads to {place.linked()}")
    if not said.startswith("done "):
        if not said.startswith("SystemExit: 3 ") or words not in said or "Traceback" in said:
            raise RuntimeError(f"said {said!r}")
        if place.linked() != old and read_state(place).state != TRYING:
            raise RuntimeError(f"failed, and current leads to {place.linked()}")
    recovered = in_fork(lambda: status(place)["state"])
    if recovered == TRYING or place.linked() != read_state(place).current:
        raise RuntimeError(f"recovered to {recovered}, current leads to {place.linked()}")
    check_bundle(place.current)


def main(folder: Path, stride: int) -> None:
    activating.activate.__kwdefaults__ = None
    real = commands.activate
    commands.activate = lambda place, sha256, shipper, forgive: real(
        place, sha256, shipper, True, prove, lambda place, release: None
    )
    real_begin = commands.begin
    commands.begin = lambda place, content, signature, shipper, forgive: real_begin(place, content, signature, shipper, True)
    new = json.loads((folder / "names.json").read_text())["install"][0]
    result: dict[str, object] = {"wrong": []}
    for fault, words in ((errno.ENOSPC, "No space left on device"), (errno.EIO, "Input/output error")):
        number, writes = 0, None
        while writes is None or number < writes:
            work = folder / f"work-{number}"
            shutil.copytree(folder / "place", work, symlinks=True)
            place = Place(work)
            old = str(read_state(place).current)
            try:
                if writes is None:
                    said = failed(place, folder / "release-2", -1, 0)
                    writes = int(said.removeprefix("done "))
                    number = fault % stride - stride
                else:
                    said = failed(place, folder / "release-2", number, fault)
                    judge(place, old, new, said, words)
                    last = place.linked() != old or number % 8
                    again = "done" if last else failed(place, folder / "release-2", -1, 0)
                    if not again.startswith("done") or (not last and read_state(place).state != COMMITTED):
                        raise RuntimeError(f"after the fault was mended: {again}")
                    check_bundle(place.current)
            except Exception as wrong:
                result["wrong"].append(f"write {number}, {words}: {type(wrong).__name__}: {wrong}")
            shutil.rmtree(work)
            number += stride
        result[words] = writes
    sys.stdout.write(json.dumps(result))


main(Path(sys.argv[1]), int(sys.argv[2]))
