"""Targets that are not this process's own interpreter: over SSH, and with an environment as a board has it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetune.device.environment import processor_facts
from edgetune.errors import ArtefactError, TargetError, UsageError
from edgetune.progress import Silent
from edgetune.recipe import VerifyRecipe
from edgetune.verify.stage import check_target, measure, session_options
from edgetune.verify.targets.interface import EvalRequest, LatencyRequest, ModelRequest, Request
from edgetune.verify.targets.local import LocalTarget
from edgetune.verify.targets.opening import open_target


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        pass


def request(world, **changes) -> Request:
    given = {
        "models": (ModelRequest(name="int8", path=world.int8.path, sha256=world.int8.sha256),),
        "session": session_options(world.profile),
        "eval": EvalRequest(images=world.dataset.folder / "test" / "images.npy"),
        "latency": LatencyRequest(warmup=1, rounds=2, queries_per_round=4),
        "footprint": False,
    }
    return Request(**{**given, **changes})


@pytest.fixture
def board_home(over_ssh, tmp_path):
    """Return a home folder for the user of the server on loopback, and an interpreter that believes to be at home there."""
    home = tmp_path / "home"
    home.mkdir()
    return home


def at_home(home: Path, body: str = "", python: str = sys.executable) -> str:
    """Return an interpreter that has its home in a folder, and does something else than asked where `body` says so."""
    path = home / "python3"
    path.write_text(f'#!/bin/sh\nexport HOME={home}\nunset XDG_CACHE_HOME\n{body}\nexec {python} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


ON_RUNNER = 'case "$*" in *runner.pyz*) {body};; esac'


def test_a_board_measures_what_this_machine_does_and_nothing_is_left_there_but_the_cache(world, over_ssh, board_home, tmp_path):
    target = open_target(over_ssh.address(python=at_home(board_home)))
    answer = target.measure(request(world, footprint=True), tmp_path / "out", Silent())
    assert answer["models"]["int8"]["footprint"]["cold_start_ms"] > 0
    LocalTarget().measure(request(world), tmp_path / "here", Silent())
    there, here = (np.load(tmp_path / name / "logits-int8.npy") for name in ("out", "here"))
    assert np.array_equal(there, here)
    cache = board_home / ".cache" / "edgetune"
    assert list((cache / "scratch").iterdir()) == []
    assert f"{world.int8.sha256}.onnx" in [path.name for path in (cache / "files").iterdir()]
    assert "127.0.0.1" not in target.describe()


def test_what_was_sent_once_is_not_sent_again_and_a_damaged_copy_is_replaced(world, over_ssh, board_home, tmp_path):
    target = open_target(over_ssh.address(python=at_home(board_home)))
    asked = request(world, latency=None)
    target.measure(asked, tmp_path / "out", Silent())
    copy = board_home / ".cache" / "edgetune" / "files" / f"{world.int8.sha256}.onnx"
    before = copy.stat().st_ino
    target.measure(asked, tmp_path / "out", Silent())
    assert copy.stat().st_ino == before
    content = copy.read_bytes()
    copy.write_bytes(b"\0" + content[1:])
    target.measure(asked, tmp_path / "out", Silent())
    assert copy.read_bytes() == content


def test_golden_images_travel_as_a_folder(world, over_ssh, board_home, tmp_path):
    from edgetune.artefacts import Preprocessing

    golden = tmp_path / "golden"
    golden.mkdir()
    for name, _ in world.dataset.golden:
        (golden / name).write_bytes((world.dataset.folder / "golden" / name).read_bytes())
    rows = [index for _, index in world.dataset.golden]
    np.save(golden / "tensors.npy", np.asarray(world.dataset.images("test")[rows]))
    LocalTarget().measure(request(world), tmp_path / "here", Silent())
    np.save(golden / "logits.npy", np.load(tmp_path / "here" / "logits-int8.npy")[rows])
    import json

    (golden / "golden.json").write_text(json.dumps({"images": [{"file": n, "label": 0} for n, _ in world.dataset.golden]}))
    target = open_target(over_ssh.address(python=at_home(board_home)))
    asked = request(world, golden=golden, eval=None, latency=None, preprocessing=Preprocessing(height=8, width=8))
    answer = target.measure(asked, tmp_path / "out", Silent())
    assert answer["golden"]["model"] == "int8"


def test_an_environment_of_numpy_and_onnxruntime_alone_is_enough(world, device_python, tmp_path):
    target = open_target(f"python:{device_python}")
    assert target.environment()["architecture"] == processor_facts()["architecture"]
    answer = target.measure(request(world, footprint=True), tmp_path / "out", Silent())
    assert answer["models"]["int8"]["eval"]["images"] == 40
    code = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'edgetune') if u.find_spec(n)])"
    assert subprocess.run([device_python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_python_without_onnxruntime_is_told_what_to_install(over_ssh, board_home, tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = at_home(board_home, python=str(bare / "bin" / "python"))
    with pytest.raises(TargetError, match="cannot import onnxruntime") as caught:
        open_target(over_ssh.address(python=python)).environment()
    assert "-m pip install onnxruntime" in caught.value.remedy


@pytest.mark.parametrize(
    ("body", "error", "word"),
    [
        ("kill -ILL $$", TargetError, "instruction that this processor does not have"),
        ("kill -KILL $$", TargetError, "killed from outside"),
        ("echo Segfault >&2; kill -SEGV $$", TargetError, "SIGSEGV"),
        ("exit 9", TargetError, "exit code 9"),
        ("echo garbage; exit 0", ArtefactError, "left no measurement.json"),
        ("echo '/x: no space left' >&2; exit 3", TargetError, "no space left"),
        ("echo 'runner.pyz needs Python 3.8 or newer, this is 3.6' >&2; exit 1", TargetError, "needs Python 3.8"),
    ],
)
def test_each_way_in_which_a_runner_ends_on_a_board_is_one_sentence(world, over_ssh, board_home, tmp_path, body, error, word):
    python = at_home(board_home, ON_RUNNER.format(body=body))
    with pytest.raises(error, match=word) as caught:
        open_target(over_ssh.address(python=python)).measure(request(world), tmp_path / "out", Silent())
    assert "Traceback" not in str(caught.value)
    assert list((board_home / ".cache" / "edgetune" / "scratch").iterdir()) == []


def test_a_runner_that_hangs_on_a_board_is_ended_there(world, over_ssh, board_home, tmp_path):
    python = at_home(board_home, ON_RUNNER.format(body=f"echo $$ > {tmp_path}/pid; exec sleep 1000"))
    with pytest.raises(TargetError, match="did not end within 1 s"):
        open_target(over_ssh.address(python=python), deadline_s=1).measure(request(world), tmp_path / "out", Silent())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGCONT)


def test_a_board_whose_folder_cannot_be_made_is_refused_in_one_sentence(over_ssh, board_home):
    (board_home / ".cache").write_text("in the way")
    with pytest.raises(TargetError, match=r"has no folder for what has to be sent there: .*\.cache") as caught:
        open_target(over_ssh.address(python=at_home(board_home))).environment()
    assert "XDG_CACHE_HOME" in caught.value.remedy


def test_what_nobody_needs_any_more_is_thrown_away_on_the_board(over_ssh, board_home):
    files = board_home / ".cache" / "edgetune" / "files"
    (files / "folder").mkdir(parents=True)
    orphan = board_home / ".cache" / "edgetune" / "scratch" / "4194999-of-the-dead"
    orphan.mkdir(parents=True)
    old, new = files / "folder" / "old", files / "new"
    for path in (old, new):
        path.write_text("x")
    os.utime(old, (0, 0))
    open_target(over_ssh.address(python=at_home(board_home))).environment()
    assert not old.exists()
    assert new.exists()
    assert not orphan.exists()


def test_a_named_device_must_be_the_target(world, over_ssh, board_home):
    address = over_ssh.address(python=at_home(board_home))
    assert check_target(world.profile, VerifyRecipe(device=address))["onnxruntime"]
    processor = world.profile.processor.model_copy(update={"features": ("quantum",)})
    profile = world.profile.model_copy(update={"processor": processor})
    with pytest.raises(TargetError, match="a board over SSH is not what the profile") as caught:
        check_target(profile, VerifyRecipe(device=address))
    assert "quantum" in str(caught.value)


def test_the_stage_measures_on_the_named_device(world, over_ssh, board_home, tmp_path):
    recipe = VerifyRecipe(device=over_ssh.address(python=at_home(board_home)), test_images=12)
    heard = Heard()
    found = measure({"fp32": world.fp32}, world.dataset, world.profile, recipe, folder=tmp_path / "out", progress=heard)
    assert found.is_target
    assert found.where.startswith("a board over SSH")
    assert found.logits("fp32").shape == (12, 4)


def test_an_address_that_is_none_is_a_usage_error():
    with pytest.raises(UsageError, match="expected local"):
        open_target("board")
