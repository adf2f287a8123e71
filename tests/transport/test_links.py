"""The same tests for every kind of link, over a real process and a real SSH server."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgetune.errors import TargetError
from edgetune.files import sha256_file
from edgetune.transport import agentlink, ssh
from edgetune.transport.address import open_link


@pytest.fixture(params=["local", "ssh"])
def link(request):
    address = "local" if request.param == "local" else request.getfixturevalue("over_ssh").address()
    with_it = open_link(address)
    yield with_it
    with_it.close()


def runs(pid: int) -> bool:
    """Return whether a process still runs, after some patience; one that nobody has waited for yet has ended."""
    for _ in range(150):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def written_pid(path: Path) -> int:
    for _ in range(500):
        if path.is_file() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.02)
    raise AssertionError("the command did not start")


def test_a_command_gets_its_arguments_and_stdin_as_they_are(link):
    words = ["a b", "$HOME", "'", '"', "\\", "*", ";", "é\n"]
    program = "import sys; print(sys.argv[1:]); sys.stdout.write(sys.stdin.read()[::-1]); sys.exit(7)"
    text = "x" * 300_000 + "end"
    done = link.run([link.python, "-c", program, *words], stdin=text.encode(), deadline_s=30)
    assert done.returncode == 7
    assert done.stdout.decode() == f"{words}\n{text[::-1]}"


def test_much_output_arrives_whole_and_news_line_by_line(link):
    heard = []
    program = "import sys; sys.stdout.write('o' * 5_000_000); print('one', file=sys.stderr); sys.stderr.write('two')"
    done = link.run([link.python, "-c", program], deadline_s=30, heard=heard.append)
    assert len(done.stdout) == 5_000_000
    assert done.stderr == b"one\ntwo"
    assert heard == ["one", "two"]


@pytest.mark.parametrize("name", ["ILL", "KILL", "SEGV"])
def test_a_death_by_signal_is_told_from_an_exit_code(link, name):
    done = link.run(["sh", "-c", f"kill -{name} $$"], deadline_s=30)
    assert done.returncode == -signal.Signals[f"SIG{name}"]
    assert not done.out_of_memory
    assert link.run(["sh", "-c", "exit 255"], deadline_s=30).returncode == 255


def test_a_command_that_is_not_there_does_not_end_the_link(link):
    with pytest.raises(TargetError, match=r"/nowhere/x cannot be run on .*No such file"):
        link.run(["/nowhere/x"], deadline_s=30)
    assert link.run(["true"], deadline_s=30).returncode == 0


def test_the_deadline_ends_a_command_with_its_children(link, tmp_path):
    body = f"sleep 1000 & echo $! > {tmp_path}/pid; wait"
    begin = time.monotonic()
    with pytest.raises(TargetError, match=r"did not end within 0\.5 s"):
        link.run(["sh", "-c", body], deadline_s=0.5)
    assert time.monotonic() - begin < agentlink.GRACE_S
    assert not runs(written_pid(tmp_path / "pid"))


def test_what_a_command_leaves_in_the_background_ends_with_it_unless_it_has_its_own_session(link, tmp_path):
    body = f"sleep 1000 & echo $! > {tmp_path}/mine; setsid sh -c 'echo $$ > {tmp_path}/own; exec sleep 1000' & sleep 0.3"
    begin = time.monotonic()
    assert link.run(["sh", "-c", body], deadline_s=30).returncode == 0
    assert time.monotonic() - begin < 20
    own = written_pid(tmp_path / "own")
    assert not runs(written_pid(tmp_path / "mine"))
    assert Path(f"/proc/{own}").exists()
    os.kill(own, signal.SIGKILL)


def test_a_host_that_is_killed_leaves_no_process_behind(link, tmp_path, request):
    address = "local" if link.here else request.getfixturevalue("over_ssh").address()
    body = f"echo $$ > {tmp_path}/pid; sleep 1000; true"
    program = (
        "import sys; from edgetune.transport.address import open_link as o; o(sys.argv[1]).run(sys.argv[2:], deadline_s=999)"
    )
    host = subprocess.Popen([sys.executable, "-c", program, address, "sh", "-c", body])
    pid = written_pid(tmp_path / "pid")
    host.kill()
    host.wait()
    assert not runs(pid)


def test_a_file_goes_there_and_back(link, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(random.Random(0).randbytes(300_000))
    there = tmp_path / "new" / "folders" / "a file.bin"
    link.put(source, str(there), deadline_s=30)
    assert sha256_file(there) == sha256_file(source)
    assert [path.name for path in there.parent.iterdir()] == ["a file.bin"]
    link.get(str(there), tmp_path / "back" / "file", deadline_s=30)
    assert sha256_file(tmp_path / "back" / "file") == sha256_file(source)


def test_an_empty_file_is_a_file(link, tmp_path):
    (tmp_path / "empty").touch()
    link.put(tmp_path / "empty", str(tmp_path / "there"), deadline_s=30)
    assert (tmp_path / "there").read_bytes() == b""


def test_a_file_that_is_there_is_not_sent_again_and_another_one_replaces_it(link, tmp_path):
    source, there = tmp_path / "source", tmp_path / "there"
    source.write_bytes(b"one" * 1000)
    link.put(source, str(there), deadline_s=30)
    before = there.stat().st_ino
    link.put(source, str(there), deadline_s=30)
    assert there.stat().st_ino == before
    source.write_bytes(b"two" * 1000)
    link.put(source, str(there), deadline_s=30)
    assert there.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("left", [b"ab" * 1000, b"ab" * 999 + b"xy", b"ab" * 9000, b""])
def test_what_an_earlier_attempt_left_is_gone_on_from_only_if_it_is_the_beginning(link, tmp_path, left):
    source, there = tmp_path / "source", tmp_path / "there"
    source.write_bytes(b"ab" * 2000 + b"end")
    (tmp_path / "there.part").write_bytes(left)
    link.put(source, str(there), deadline_s=30)
    assert there.read_bytes() == source.read_bytes()
    assert not (tmp_path / "there.part").exists()


def test_a_folder_that_cannot_be_written_is_named(link, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with pytest.raises(TargetError, match=r"source cannot be put on .*: /proc/nothing"):
        link.put(source, "/proc/nothing/there", deadline_s=30)
    assert link.run(["true"], deadline_s=30).returncode == 0


def test_a_file_that_is_not_there_cannot_be_fetched(link, tmp_path):
    with pytest.raises(TargetError, match="No such file"):
        link.get(str(tmp_path / "nothing"), tmp_path / "here", deadline_s=30)
    assert list(tmp_path.iterdir()) == []


def test_no_space_left_is_said_before_anything_is_sent(link, tmp_path, monkeypatch):
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.truncate(1 << 43)
    monkeypatch.setattr(agentlink, "sha256_file", lambda path: "0" * 64)
    begin = time.monotonic()
    with pytest.raises(TargetError, match=r"sparse cannot be put on .* bytes free, 8796093022208 are needed"):
        link.put(source, str(tmp_path / "there"), deadline_s=30)
    assert time.monotonic() - begin < 20
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("how", ["reset", "close"])
def test_an_upload_that_is_cut_at_random_bytes_resumes_and_ends_with_the_same_digest(over_ssh, proxy, tmp_path, how):
    rng = random.Random(how)
    source, there = tmp_path / "source", tmp_path / "there"
    source.write_bytes(rng.randbytes(1_000_000))
    kept = []
    for _ in range(5):
        bad = proxy(over_ssh.port, rng.randrange(20_000, 300_000), how)
        link = open_link(over_ssh.address(port=bad.port))
        with pytest.raises(TargetError, match="broke"):
            link.put(source, str(there), deadline_s=30)
        link.close()
        part = tmp_path / "there.part"
        kept.append(part.stat().st_size if part.exists() else 0)
    assert not there.exists()
    assert kept == sorted(kept)
    assert kept[-1] > 0
    link = open_link(over_ssh.address())
    link.put(source, str(there), deadline_s=30)
    link.close()
    assert sha256_file(there) == sha256_file(source)


def test_a_link_that_stalls_is_given_up_within_the_deadline(over_ssh, proxy, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(bytes(2_000_000))
    link = open_link(over_ssh.address(port=proxy(over_ssh.port, 200_000, "stall").port))
    begin = time.monotonic()
    with pytest.raises(TargetError, match="did not answer in time"):
        link.put(source, str(tmp_path / "there"), deadline_s=2)
    assert time.monotonic() - begin < 6
    link.close()


def test_a_link_without_signs_of_life_is_given_up_long_before_a_distant_deadline(over_ssh, proxy, tmp_path, monkeypatch):
    monkeypatch.setitem(ssh.OPTIONS, "ServerAliveInterval", "1")
    source = tmp_path / "source"
    source.write_bytes(bytes(2_000_000))
    link = open_link(over_ssh.address(port=proxy(over_ssh.port, 200_000, "stall").port))
    begin = time.monotonic()
    with pytest.raises(TargetError, match=r"stalled|broke"):
        link.put(source, str(tmp_path / "there"), deadline_s=600)
    assert time.monotonic() - begin < 30
    link.close()


def test_a_link_that_broke_is_made_anew(over_ssh, proxy):
    bad = proxy(over_ssh.port, 30_000, "reset")
    link = open_link(over_ssh.address(port=bad.port))
    assert link.run(["true"], deadline_s=30).returncode == 0
    with pytest.raises(TargetError):
        link.run(["cat"], stdin=bytes(100_000), deadline_s=30)
    assert link.run(["true"], deadline_s=30).returncode == 0
    link.close()
