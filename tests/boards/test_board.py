"""A virtual arm64 board: another kernel, another processor, its own memory."""

from __future__ import annotations

import pytest

from edgetune.errors import TargetError
from edgetune.profile import load_profile, require_match
from edgetune.recipe import VerifyRecipe
from edgetune.transport.address import open_link
from edgetune.verify.stage import check_target


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
