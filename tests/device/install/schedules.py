"""Kill an installation after every step, and again on its way back; run by test_crash.py as a program, which forks.

    python schedules.py FOLDER single|double

FOLDER holds `place`, a product's folder with release 1 committed and one before it; and `release-2`, `release-3`. Prints JSON:
the number of schedules, and what was wrong with which.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from edgetune.device.digest import check_bundle
from edgetune.device.install import activate as activating
from edgetune.device.install import back
from edgetune.device.install.crash import BACK_STEPS, STEPS, VARIABLE
from edgetune.device.install.place import Place
from edgetune.device.install.receive import begin
from edgetune.device.install.setup import status
from edgetune.device.install.state import COMMITTED, TRYING, read_state

SHIPPER = "a" * 32
Schedule = tuple[str, tuple[str, ...]]
ROLLBACK_STEPS = tuple(step for step in STEPS if STEPS.index(step) >= STEPS.index("tried"))


def prove(folder: Path, seconds: float) -> dict[str, object]:
    manifest = check_bundle(folder)
    return {"model_sha256": manifest["files"]["model.onnx"]["sha256"]}


def install(place: Place, bundle: Path) -> None:
    begun = begin(place, (bundle / "manifest.json").read_bytes(), b"", SHIPPER, forgive=True)
    for row in begun["needed"]:
        target = Path(begun["folder"]) / row["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / row["name"], target)
    if not begun["installed"]:
        # The timer dies with the power, so there is none; while this process lives it counts as one.
        activating.activate(place, begun["manifest_sha256"], SHIPPER, True, prove, lambda place, release: None)
        activating.is_tried = back.is_tried = lambda place: True
        activating.confirm(place, begun["manifest_sha256"])


def dies(work: Callable[[], object], step: str) -> bool:
    """Do some work in a fork that is to die after a step, and return whether it did.

    Raises:
        RuntimeError: it ended in another way.
    """
    child = os.fork()
    if child == 0:
        os.environ[VARIABLE] = step
        try:
            work()
        except BaseException as fault:
            os.write(2, f"{type(fault).__name__}: {fault}\n".encode())
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"ended with {code} where it was to die after {step or 'nothing'}")
    return code != 0


def whole(place: Place, allowed: set[str]) -> None:
    """Check what another program finds: a release, all of it, and one of those that may be current."""
    name = place.linked()
    if name not in allowed:
        raise RuntimeError(f"current leads to {name}, expected one of {sorted(allowed)}")
    check_bundle(place.current)


def run(folder: Path, number: int, schedule: Schedule) -> None:
    """Play one schedule: a command that dies, and what is to die on the way back or in the next attempt.

    Raises:
        RuntimeError, RunnerError: a mixture, or something that does not go on.
    """
    command, steps = schedule
    work = folder / f"work-{number}"
    shutil.copytree(folder / "place", work, symlinks=True)
    place = Place(work)
    old = str(read_state(place).current)
    new = next(name for name in json.loads((folder / "names.json").read_text())[command])
    do = {"install": lambda: install(place, folder / "release-2"), "rollback": lambda: activating.roll_back(place, None, prove)}
    if not dies(do[command], steps[0]):
        raise RuntimeError(f"{steps[0]} was never reached")
    whole(place, {old, new})
    for step in steps[1:]:
        again = (lambda: status(place)) if step in BACK_STEPS else do["install"]
        if step in BACK_STEPS and read_state(place).state != TRYING:
            raise RuntimeError(f"{step} cannot be reached: nothing is being tried")
        dies(again, step)
        whole(place, {old, new, *json.loads((folder / "names.json").read_text())["install"]})
    if dies(lambda: status(place), ""):
        raise RuntimeError("the recovery died")
    state = read_state(place)
    whole(place, {str(state.current)})
    if state.state == TRYING:
        raise RuntimeError("something is still being tried")
    dies(lambda: install(place, folder / "release-3"), "")
    state = read_state(place)
    if state.state != COMMITTED or state.highest_counter != 30:
        raise RuntimeError(f"the next release did not go in: {state}")
    whole(place, {str(state.current)})
    shutil.rmtree(work)


def schedules(how: str) -> Iterator[Schedule]:
    tried = STEPS[STEPS.index("tried") : STEPS.index("committed")]
    for step in STEPS:
        yield "install", (step,)
    for step in ROLLBACK_STEPS:
        yield "rollback", (step,)
    for command, step in [(command, step) for command in ("install", "rollback") for step in tried]:
        yield from ((command, (step, first)) for first in BACK_STEPS)
    if how == "double":
        yield from (("install", (first, second)) for first in STEPS for second in STEPS)
        yield from (
            ("install", (first, middle, last))
            for first in tried
            for middle in BACK_STEPS
            for last in (*BACK_STEPS[:2], *STEPS)
            if not (last in BACK_STEPS and middle == "back-stated")
        )


def main(folder: Path, how: str) -> None:
    wrong, count = [], 0
    for count, schedule in enumerate(schedules(how), 1):
        try:
            run(folder, count, schedule)
        except Exception as fault:
            wrong.append(f"{schedule}: {type(fault).__name__}: {fault}")
    sys.stdout.write(json.dumps({"schedules": count, "wrong": wrong}))


main(Path(sys.argv[1]), sys.argv[2])
