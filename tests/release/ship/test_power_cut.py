"""Power is cut at each state of an installation, and again on the way back: of a virtual board, and behind a real sshd."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from edgetune.device.install.crash import VARIABLE
from edgetune.errors import TargetError
from edgetune.release.ship.device import Device
from edgetune.release.ship.host import shipper
from edgetune.transport.address import open_link

TRIED = ("tried", "switched", "healthy")
STATES = ("received", "verified", "installed", *TRIED, "committed")
"""After RECEIVING, VERIFIED, INSTALLED and TRYING are on the disk; after the link is switched; and after COMMITTED."""
ROOT = "/root/releases"


class Board:
    """A board whose disk outlives its power.

    Args:
        image: the folder of the board's files.
        folder: for its own disk.
        port: of its SSH server.
    """

    def __init__(self, image: Path, folder: Path, port: int) -> None:
        self.image, self.folder, self.port = image, folder, port
        for name in ("vmlinuz", "initrd.gz"):
            (folder / name).symlink_to(image / name)
        subprocess.run(["cp", "--sparse=always", image / "root.img", folder / "root.img"], check=True)

    def boot(self, scripts: Path) -> None:
        command = ["bash", str(scripts / "boot_board.sh"), str(self.folder), "cortex-a72", "512", str(self.port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr

    def cut(self) -> None:
        """Take its power, as a plug that is pulled: the kernel of the board writes nothing more."""
        path = self.folder / f"qemu.{self.port}.pid"
        pid = int(path.read_text())
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            time.sleep(0.05)
        path.unlink()


@pytest.fixture
def board(board_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folder = tmp_path_factory.mktemp("power")
    board = Board(board_image, folder, port)
    yield board
    if (folder / f"qemu.{port}.pid").exists():
        board.cut()
    shutil.rmtree(folder)


class Powered(ABC):
    """A device that is on, with a link to it.

    Args:
        address: of it.
        root: the folder of its releases.
    """

    def __init__(self, address: str, root: str) -> None:
        self.link = open_link(address)
        self.device = Device(self.link, "colours", root)

    def whole(self) -> str:
        """Check on the device that what current leads to is exactly what was built; return its name."""
        folder = f"{self.device.folder}/current"
        done = self.link.run([self.link.python, f"{self.device.folder}/runner.pyz", "verify", folder], deadline_s=120)
        assert done.returncode == 0, done.stderr.decode()
        name = self.link.run(["readlink", folder], deadline_s=60).stdout.decode().strip()
        return name.removeprefix("releases/")

    def stopped_at(self, step: str, words: list[str], stdin: bytes = b"") -> None:
        """Run a command of the runner until it stands still after a step, then cut the power."""
        runner = [self.link.python, f"{self.device.folder}/runner.pyz", "install", *words]
        seen: list[str] = []

        def heard(line: str) -> None:
            seen.append(line)
            if line == step:
                self.cut()

        ended = ""
        try:
            done = self.link.run(["env", f"{VARIABLE}={step}:stop", *runner], deadline_s=900, stdin=stdin, heard=heard)
            ended = "" if done.returncode == -signal.SIGKILL else f"{done.returncode} {done.stderr.decode()}"
        except TargetError:
            self.link.close()
        assert not ended
        assert step in seen, seen

    @abstractmethod
    def cut(self) -> None:
        """Take its power."""

    @abstractmethod
    def again(self) -> Powered:
        """Return it with its power back."""


class PoweredBoard(Powered):
    """A virtual board."""

    def __init__(self, board: Board, scripts: Path, config: Path) -> None:
        board.boot(scripts)
        self.board, self.scripts, self.config = board, scripts, config
        known = config.parent / "known_hosts"
        if not known.exists():
            scan = ["ssh-keyscan", "-p", str(board.port), "-t", "ecdsa", "127.0.0.1"]
            found = subprocess.run(scan, capture_output=True, text=True, check=True, timeout=60).stdout
            known.write_text("board " + " ".join(found.split()[1:3]) + "\n")
        super().__init__(f"ssh://root@127.0.0.1:{board.port}/usr/bin/python3", ROOT)

    def cut(self) -> None:
        self.board.cut()

    def again(self) -> PoweredBoard:
        return PoweredBoard(self.board, self.scripts, self.config)


class PoweredFolder(Powered):
    """A folder of this machine behind an SSH server: every process that works in it dies at once, its timer too."""

    def __init__(self, address: str, root: str) -> None:
        super().__init__(address, root)
        self.address, self.root = address, root

    def cut(self) -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"{self.root}/".encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def again(self) -> PoweredFolder:
        self.link.close()
        return PoweredFolder(self.address, self.root)


def cut_everywhere(on: Powered, states: Sequence[str], release, **changes) -> list[str]:
    """Install releases, cut the power at one state of each: the old or the new one, never a mixture; return what was left."""
    left = []
    current = on.device.ship(release(1, **changes)).release
    for number, state in enumerate(states, 2):
        folder = release(number, **changes)
        content, signature = (folder / "manifest.json").read_bytes(), (folder / "manifest.json.sig").read_bytes()
        head = b"%d %d\n" % (len(content), len(signature)) + content + signature
        me = ["--shipper", shipper()]
        if state == "received":
            on.stopped_at(state, ["begin", on.device.folder, *me], head)
        else:
            begun = on.device._ask("begin", *me, stdin=head)
            on.device._send(folder, content, begun)
            sha256 = begun["manifest_sha256"]
            if state == "committed":
                on.device._ask("activate", sha256, *me, deadline_s=900)
                on.stopped_at(state, ["confirm", on.device.folder, sha256])
            else:
                on.stopped_at(state, ["activate", on.device.folder, sha256, *me])
        new = f"{number}-{hashlib.sha256(content).hexdigest()[:12]}"
        on = on.again()
        assert on.whole() in (current, new), state
        if state in TRIED:
            on.stopped_at("back-switched", ["recover", on.device.folder])
            on = on.again()
            assert on.whole() == current, state
        status = on.device.status()
        wanted = new if state == "committed" else current
        assert (status["current"], status["linked"], status["intact"]) == (wanted, wanted, True), (state, status)
        assert status["state"] == {**dict.fromkeys(TRIED, "ROLLED_BACK"), "committed": "COMMITTED"}.get(state, status["state"])
        assert on.whole() == wanted
        current = wanted
        left.append(current)
    assert on.device.ship(release(99, **changes)).release == on.whole()
    on.link.close()
    return left


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_power_cut_at_each_state_and_again_on_the_way_back(
    board, board_image, release, publisher, tmp_path, monkeypatch, repository
):
    """Some twenty boots of an emulated board: a quarter of an hour. EDGETUNE_STATES names some of the states."""
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host *\n  IdentityFile {board_image / 'key'}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {tmp_path}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  HostKeyAlias board\n"
    )
    monkeypatch.setenv("EDGETUNE_SSH_CONFIG", str(config))
    on = PoweredBoard(board, repository / "tests/boards", config)
    patient = {"product": "colours", "allow_volatile": True, "health_s": 600.0, "confirm_s": 600.0}
    on.device.set_up(patient, publisher.signers(), None)
    machine = {"architecture": "aarch64", "min_onnxruntime": "1.17", "tolerance": {"logit_max_abs": 0.5}}
    states = os.environ.get("EDGETUNE_STATES", " ".join(STATES)).split()
    # What a cut leaves is the first release until one is committed.
    numbers = [name.split("-")[0] for name in cut_everywhere(on, states, release, profile=machine)]
    assert numbers == [str(n) if state == "committed" else "1" for n, state in enumerate(states, 2)]


@pytest.mark.timeout(600)
def test_the_same_behind_an_sshd_on_loopback(over_ssh, release, publisher, tmp_path):
    on = PoweredFolder(over_ssh.address(), str(tmp_path / "releases"))
    patient = {"product": "colours", "allow_volatile": True, "health_s": 600.0, "confirm_s": 600.0}
    on.device.set_up(patient, publisher.signers(), None)
    numbers = [name.split("-")[0] for name in cut_everywhere(on, STATES, release)]
    assert numbers == ["1"] * (len(STATES) - 1) + [str(len(STATES) + 1)]
