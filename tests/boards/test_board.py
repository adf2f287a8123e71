"""A virtual arm64 board: another kernel, another processor, its own memory."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgetune.cli.main import main
from edgetune.errors import TargetError
from edgetune.files import sha256_file
from edgetune.profile import load_profile, require_match
from edgetune.progress import Silent
from edgetune.recipe import VerifyRecipe
from edgetune.transport.address import open_link
from edgetune.verify.fitness import profile_differences
from edgetune.verify.stage import check_target, stand_in
from edgetune.verify.targets.interface import EvalRequest, ModelRequest, Request
from edgetune.verify.targets.opening import open_target


@pytest.fixture
def board(cortex_a72, monkeypatch):
    monkeypatch.setenv("EDGETUNE_SSH_CONFIG", str(cortex_a72.config))
    return cortex_a72.address(python="/usr/bin/python3")


@pytest.mark.timeout(600)
def test_a_board_is_what_its_profile_says_and_not_what_another_says(board):
    pi5 = load_profile("raspberry-pi-5")
    environment = check_target(load_profile("raspberry-pi-4"), VerifyRecipe(device=board))
    assert environment["name"] == "Cortex-A72"
    assert environment["architecture"] == "aarch64"
    assert "asimddp" not in environment["features"]
    # It has one core of a Raspberry Pi's four: `doctor` says so, and what it measures is not taken for the target's speed.
    assert profile_differences(load_profile("raspberry-pi-4"), environment) == [
        "threads: asks for 4, the device has 1 hardware threads"
    ]
    assert "intra_op_threads = 1 instead of 4" in stand_in(load_profile("raspberry-pi-4"), environment)[1]
    with pytest.raises(TargetError, match="a board over SSH is not what the profile 'raspberry-pi-5' describes") as caught:
        require_match(pi5, environment, "a board over SSH")
    assert "processor lacks asimddp" in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_command_that_wants_too_much_memory_is_killed_for_it_and_the_board_still_answers(board):
    """Slow: half a gigabyte is filled by an emulated processor."""
    link = open_link(board)
    greedy = "a = []\nwhile True: a.append(bytearray(b'x') * (1 << 24))"
    done = link.run(["/usr/bin/python3", "-c", greedy], deadline_s=240)
    assert done.returncode == -9
    assert done.out_of_memory
    assert link.run(["true"], deadline_s=60).returncode == 0
    link.close()


@pytest.mark.timeout(600)
def test_a_build_for_a_processor_that_the_board_is_not_is_refused_before_anything_runs(board, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["build", "--target", "raspberry-pi-5", "--device", board, "--output", str(run)]) == 3
    assert "processor lacks asimddp" in capsys.readouterr().err
    assert not (run / "stages").exists()


def greedy(path: Path, pieces: int) -> Path:
    """Write a small file of a model that wants 512 MiB to run, in equal pieces that are all alive at once.

    It adds, as nothing takes memory faster: where memory runs out slowly, a kernel fetches the same pages of programs from disk
    again and again for a minute before it kills, and no link lives that long.
    """
    want = helper.make_tensor("want", TensorProto.INT64, [1], [(128 << 20) // pieces])
    classes = helper.make_tensor("classes", TensorProto.FLOAT, [3], [0.0, 1.0, 2.0])
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "want"], ["many"]),
        *(helper.make_node("Add", [f"piece{n - 1}" if n else "many", "mean"], [f"piece{n}"]) for n in range(pieces)),
        helper.make_node("Sum", ["many", *(f"piece{n}" for n in range(pieces))], ["total"]),
        helper.make_node("ReduceMean", ["total"], ["one"], keepdims=1),
        helper.make_node("Mul", ["one", "classes"], ["row"]),
        helper.make_node("Reshape", ["row", "shape"], ["logits"]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [4], [0, 1, 2, 3])
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1, 3])
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    graph = helper.make_graph(nodes, "greedy", [image], [logits], [want, classes, axes, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("pieces", "how"), [(1, "out of memory"), (32, "killed for memory")])
def test_a_model_that_does_not_fit_is_said_in_a_sentence_and_the_board_still_answers(pieces, how, boot, monkeypatch, tmp_path):
    """What the kernel sees at once to be too much it refuses; what grows, it kills."""
    small = boot("cortex-a72", 128)
    monkeypatch.setenv("EDGETUNE_SSH_CONFIG", str(small.config))
    address = small.address(python="/usr/bin/python3")
    model = greedy(tmp_path / "greedy.onnx", pieces)
    np.save(tmp_path / "images.npy", np.zeros((2, 8, 8, 3), np.uint8))
    request = Request(
        models=(ModelRequest(name="fp32", path=model, sha256=sha256_file(model)),),
        session=load_profile("raspberry-pi-4").runtime.session_options() | {"intra_op_threads": 1},
        eval=EvalRequest(images=tmp_path / "images.npy"),
        footprint=False,
    )
    with pytest.raises(TargetError, match=f"{how}: .* has too little of it") as caught:
        open_target(address, deadline_s=400).measure(request, tmp_path / "out", Silent())
    assert caught.value.exit_code == 3
    link = open_link(address)
    assert link.run(["true"], deadline_s=60).returncode == 0
    link.close()


@pytest.mark.timeout(600)
def test_a_host_that_is_killed_leaves_no_process_on_the_board(board, tmp_path):
    words = f"from edgetune.transport.address import open_link\nopen_link({board!r}).run(['sleep', '98765'], deadline_s=600)"
    host = subprocess.Popen([sys.executable, "-c", words])
    link = open_link(board)

    def there() -> bool:
        return b"sleep 98765" in link.run(["ps", "-o", "args"], deadline_s=60).stdout

    def within(seconds: float, state: bool) -> bool:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if there() is state:
                return True
            time.sleep(0.5)
        return False

    assert within(120, True)
    host.kill()
    host.wait()
    assert within(90, False)
    link.close()


@pytest.mark.timeout(600)
def test_a_board_with_its_clock_at_1970_takes_files_and_commands(board, tmp_path):
    link = open_link(board)
    assert link.run(["date", "-s", "1970-01-02 00:00:00"], deadline_s=60).returncode == 0
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    link.put(tmp_path / "file", "/root/there", deadline_s=60)
    link.get("/root/there", tmp_path / "back", deadline_s=60)
    assert (tmp_path / "back").read_bytes() == b"x" * 10_000
    link.close()


@pytest.mark.timeout(600)
def test_no_space_on_a_board_is_said(board, tmp_path):
    link = open_link(board)
    setup = "mkdir -p /tmp/small && mount -t tmpfs -o size=1m t /tmp/small"
    assert link.run(["sh", "-c", setup], deadline_s=60).returncode == 0
    (tmp_path / "file").write_bytes(bytes(2_000_000))
    with pytest.raises(TargetError, match="bytes free, 2000000 are needed"):
        link.put(tmp_path / "file", "/tmp/small/there", deadline_s=60)
    link.run(["umount", "/tmp/small"], deadline_s=60)
    link.close()


@pytest.mark.timeout(600)
def test_a_read_only_folder_on_a_board_is_named(board, tmp_path):
    link = open_link(board)
    setup = "mkdir -p /tmp/fixed && mount -t tmpfs -o ro t /tmp/fixed"
    assert link.run(["sh", "-c", setup], deadline_s=60).returncode == 0
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(TargetError, match="Read-only file system: /tmp/fixed"):
        link.put(tmp_path / "file", "/tmp/fixed/there", deadline_s=60)
    link.run(["umount", "/tmp/fixed"], deadline_s=60)
    link.close()
