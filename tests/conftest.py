"""What all tests share."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgetune.determinism import spin_briefly

from .proxies import Proxies, Proxy

# As the program itself does, before torch is loaded.
spin_briefly()

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetune-tests"
"""What is expensive to make and the same every time: a virtual board."""

# A machine shared with other work is slow at times; that is no fault of a law.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="Write golden files anew instead of comparing with them.")


@pytest.fixture(scope="session")
def update_goldens(pytestconfig: pytest.Config) -> bool:
    """Whether golden files are to be written anew."""
    return bool(pytestconfig.getoption("--update-goldens"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout: its documents, profiles and tools."""
    return Path(__file__).parent.parent


# --- other machines


def needs(*programs: str) -> None:
    """Skip where a program is missing; on continuous integration that is a failure."""
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        unable(f"not on this machine: {', '.join(missing)}; .ci/run says which packages bring them")


def unable(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class SshServer:
    """A machine that ssh reaches with the configuration in a file; its host key is known under any port."""

    port: int
    config: Path
    user: str

    def address(self, *, python: str = sys.executable, port: int | None = None) -> str:
        return f"ssh://{self.user}@127.0.0.1:{port or self.port}{python}"


def client_config(folder: Path, key: Path, host_key: str) -> Path:
    """Write an ssh configuration that takes nothing from the user's own."""
    (folder / "known_hosts").write_text(f"edgetune-test {host_key}\n" if host_key else "")
    config = folder / "ssh_config"
    config.write_text(
        f"""Host *
  IdentityFile {key}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  HostKeyAlias edgetune-test
"""
    )
    return config


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgetune tests", "-f", str(path)], check=True)
    return path


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"the server on port {port} did not come up")


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """A real OpenSSH server on loopback, run as this user, without sftp."""
    needs("sshd", "ssh", "ssh-keygen")
    folder = tmp_path_factory.mktemp("sshd")
    key, host_key = make_key(folder / "key"), make_key(folder / "host_key")
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    (folder / "sshd_config").write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {host_key}
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 100
"""
    )
    server = shutil.which("sshd", path="/usr/sbin:/sbin:/usr/bin:/usr/local/sbin")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(server), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    await_port(port, process)
    yield SshServer(port, client_config(folder, key, (folder / "host_key.pub").read_text().strip()), getpass.getuser())
    process.terminate()
    process.wait(10)


@pytest.fixture
def over_ssh(sshd: SshServer, monkeypatch: pytest.MonkeyPatch) -> SshServer:
    """The server on loopback, with edgetune told how to reach it."""
    monkeypatch.setenv("EDGETUNE_SSH_CONFIG", str(sshd.config))
    return sshd


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    """Make proxies: `proxy(to_port, after, "reset" | "close" | "stall")`; a connection goes bad after `after` bytes."""
    proxies = Proxies()
    yield proxies.make
    proxies.close()


def installed_with(*names: str) -> dict[str, Path]:
    """Return what these distributions and all that they require have put into site-packages: name → path."""
    entries: dict[str, Path] = {}
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        found = metadata.distribution(name)
        tops = {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}
        entries.update((top, Path(str(found.locate_file(top)))) for top in tops)
        wanted = (Requirement(text) for text in found.requires or ())
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return entries


@pytest.fixture(scope="session")
def device_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment that holds numpy and onnxruntime and nothing else.

    They are linked from this environment, not installed: the same real packages, without a network.
    """
    folder = tmp_path_factory.mktemp("device") / "python"
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for name, path in installed_with("numpy", "onnxruntime").items():
        (site / name).symlink_to(path)
    return folder / "bin" / "python"


def locked(folder: Path):
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{folder}.lock")


@pytest.fixture(scope="session")
def board_image() -> Path:
    """The folder of a virtual arm64 board with the key that lets one in; made once, and again when its script changes."""
    needs("qemu-system-aarch64", "apt-get", "dpkg-deb", "cpio", "gzip", "mke2fs", "ssh", "ssh-keygen", "ssh-keyscan")
    script = Path(__file__).parent / "boards" / "make_board.sh"
    folder = CACHE / f"board-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
    with locked(folder):
        if not (folder / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make_key(folder / "key")
            command = ["bash", str(script), str(folder), str(folder / "key.pub"), sys.executable]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                unable(f"a virtual board cannot be made here: {done.stderr[-800:]}")
            (folder / "made").touch()
    return folder


@pytest.fixture(scope="session")
def boot(board_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., SshServer]]:
    """Boot virtual boards: `boot("cortex-a72", memory_mb=512)`; each is its own, and nothing that it writes is kept."""
    running: list[Path] = []

    def start(cpu: str, memory_mb: int = 512) -> SshServer:
        port = free_port()
        folder = tmp_path_factory.mktemp("board")
        for name in ("vmlinuz", "initrd.gz", "root.img"):
            (folder / name).symlink_to(board_image / name)
        script = Path(__file__).parent / "boards" / "boot_board.sh"
        command = ["bash", str(script), str(folder), cpu, str(memory_mb), str(port), "-snapshot"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        running.append(folder / f"qemu.{port}.pid")
        if done.returncode != 0:
            pytest.fail(done.stderr)
        scan = ["ssh-keyscan", "-p", str(port), "-t", "ecdsa", "127.0.0.1"]
        found = subprocess.run(scan, capture_output=True, text=True, check=True, timeout=60).stdout
        host_key = " ".join(found.split()[1:3])
        return SshServer(port, client_config(folder, board_image / "key", host_key), "root")

    yield start
    for pid in running:
        if pid.is_file():
            os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture(scope="session")
def cortex_a72(boot: Callable[..., SshServer]) -> SshServer:
    """One virtual board for all tests that need one: a Cortex-A72, without dot product, with 512 MB."""
    return boot("cortex-a72")
