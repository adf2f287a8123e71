"""A product's place on one device, and what is asked of the runner that was set up there."""

from __future__ import annotations

import base64
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgetune.device.digest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, parse_json, table_faults
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.install.candidate import read_once
from edgetune.device.install.receive import PROTOCOL
from edgetune.device.install.signature import MAX_SIGNATURE_BYTES
from edgetune.errors import ArtefactError, EdgetuneError, TakenBack, TargetError, UsageError
from edgetune.progress import Progress, Silent
from edgetune.release.ship.host import alone_at, shipper
from edgetune.transport.interface import Link

__all__ = ["DEFAULT_ROOT", "Device", "Outcome"]

DEFAULT_ROOT = "/var/lib/edgetune"
SHORT_S = 180.0
ACTIVATE_S = 1800.0
"""Longer than the device's own limits of its golden images and hooks usually add up to."""
SLOWEST_BYTES_PER_S = 10_000
ERRORS: dict[int, type[EdgetuneError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.TARGET: TargetError,
    ExitCode.ARTEFACT: ArtefactError,
    ExitCode.BROKEN: TakenBack,
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a shipment to one device ended well.

    Attributes:
        release: what is committed there now.
        sent: how many files had to be sent.
        sent_bytes: their size.
        was_there: whether the release was current already.
        removed: releases that made room on the device.
    """

    release: str
    sent: int = 0
    sent_bytes: int = 0
    was_there: bool = False
    removed: tuple[str, ...] = ()


class Device:
    """A product's place on a machine.

    Args:
        link: to the machine.
        product: its name.
        root: the folder there that holds a folder per product; absolute.
        progress: told what happens.

    Raises:
        UsageError: the root is not absolute, or the product is not a name.
    """

    def __init__(self, link: Link, product: str, root: str = DEFAULT_ROOT, progress: Progress | None = None) -> None:
        if not PurePosixPath(root).is_absolute() or ".." in PurePosixPath(root).parts:
            raise UsageError(f"root: got {root!r}, expected an absolute path on the device")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", product):
            raise UsageError(f"product: got {product!r}, expected letters, digits, dots and dashes, 64 at most")
        self._link = link
        self._progress = progress or Silent()
        self.folder = str(PurePosixPath(root) / product)

    def set_up(self, settings: Mapping[str, Any], signers: bytes | None, revoked: bytes | None) -> dict[str, Any]:
        """Put this edgetune's runner there, and write the device's settings and whom it trusts.

        Args:
            settings: see `edgetune.device.install.settings.Settings`.
            signers: the content of a file of allowed signers; None to keep what is there.
            revoked: the content of a file of revoked keys; None for none.

        Returns:
            As `status`.

        Raises:
            EdgetuneError: what the device says is wrong.
        """
        from edgetune.device.archive import write_runner

        with tempfile.TemporaryDirectory(prefix="edgetune-") as scratch:
            write_runner(Path(scratch) / "runner.pyz")
            self._link.put(Path(scratch) / "runner.pyz", f"{self.folder}/runner.pyz", deadline_s=SHORT_S)
        files = {"allowed_signers": signers, "revoked_keys": revoked}
        packed = {name: None if file is None else base64.b64encode(file).decode() for name, file in files.items()}
        asked = {"settings": dict(settings), **packed}
        return self._ask("setup", stdin=json.dumps(asked).encode())

    def status(self) -> dict[str, Any]:
        """Return how the product stands there; see `edgetune.device.install.setup.status`.

        Raises:
            EdgetuneError: the device cannot be reached, was not set up, or has a runner of another protocol.
        """
        return self._agreed(self._ask("status"))

    def _agreed(self, answer: dict[str, Any]) -> dict[str, Any]:
        if answer.get("protocol") != PROTOCOL:
            raise TargetError(
                f"the runner on {self._link.describe()} speaks protocol {answer.get('protocol')}, this edgetune {PROTOCOL}",
                remedy="set the device up again: edgetune ship setup",
            )
        return answer

    def ship(self, bundle: Path, *, forgive: bool = False) -> Outcome:
        """Bring a signed bundle there and have it committed; nothing here is believed by the device.

        Args:
            bundle: the folder.
            forgive: also if the device went back from this very bundle before.

        Raises:
            TakenBack: the device tried it and went back.
            EdgetuneError: what the device or the link says is wrong; what was current there still is, or will be again as soon
                as the device's timer has noticed.
        """
        try:
            content = read_once(bundle / MANIFEST, MAX_MANIFEST_BYTES)
            signature = read_once(bundle / SIGNATURE, MAX_SIGNATURE_BYTES) if (bundle / SIGNATURE).exists() else b""
        except RunnerError as fault:
            raise ArtefactError(f"{bundle}: {fault}") from fault
        me = ["--shipper", shipper(), *(["--forgive"] if forgive else [])]
        with alone_at(self._link.describe(), self.folder):
            head = b"%d %d\n" % (len(content), len(signature))
            begun = self._agreed(self._ask("begin", *me, stdin=head + content + signature))
            if begun["installed"]:
                return Outcome(release=str(begun["release"]), was_there=True)
            sent_bytes = self._send(bundle, content, begun)
            self._progress.line(f"{begun['release']}: everything is there; the device proves it and switches")
            sha256 = str(begun["manifest_sha256"])
            self._ask("activate", sha256, *me, deadline_s=ACTIVATE_S)
            done = self._ask("confirm", sha256)
        return Outcome(
            release=str(done["release"]), sent=len(begun["needed"]), sent_bytes=sent_bytes, removed=tuple(done["removed"])
        )

    def roll_back(self, to: str | None = None) -> dict[str, Any]:
        """Have the device go back; see `edgetune.device.install.activate.roll_back`.

        Raises:
            EdgetuneError: what the device says is wrong.
        """
        return self._ask("rollback", *(["--to", to] if to else []), deadline_s=ACTIVATE_S)

    def log(self, lines: int) -> list[str]:
        """Return the last lines of the device's log.

        Raises:
            EdgetuneError: what the device says is wrong.
        """
        return self._run("log", "--lines", str(lines)).decode("utf-8", "replace").splitlines()

    def _send(self, bundle: Path, content: bytes, begun: Mapping[str, Any]) -> int:
        table = parse_json(content, MANIFEST)["files"]
        sizes = {str(row["name"]): int(row["size_bytes"]) for row in begun["needed"]}
        total, done = sum(sizes.values()), 0
        # A device is not trusted with more than the bundle: it may not ask for other files of this host.
        if strange := [name for name in sizes if name not in table] or table_faults(table):
            raise TargetError(f"{self._link.describe()} asks for files that are not the bundle's: {strange[0]}")
        for name, size in sizes.items():
            source = bundle / name
            if not source.is_file() or source.is_symlink():
                raise ArtefactError(f"{source} is missing", remedy="fetch the bundle again")
            self._link.put(source, f"{begun['folder']}/{name}", deadline_s=SHORT_S + size / SLOWEST_BYTES_PER_S)
            done += size
            self._progress.advance(f"to {self._link.describe()}", done, total)
        return total

    def _ask(self, step: str, *arguments: str, stdin: bytes = b"", deadline_s: float = SHORT_S) -> dict[str, Any]:
        text = self._run(step, *arguments, stdin=stdin, deadline_s=deadline_s)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise TargetError(f"the runner on {self._link.describe()} did not answer {step} as a runner does")
        return answer

    def _run(self, step: str, *arguments: str, stdin: bytes = b"", deadline_s: float = SHORT_S) -> bytes:
        runner = f"{self.folder}/runner.pyz"
        command: Sequence[str] = [self._link.python, runner, "install", step, self.folder, *arguments]
        done = self._link.run(command, deadline_s=deadline_s, stdin=stdin)
        if done.returncode == 0:
            return done.stdout
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        where = self._link.describe()
        if words and "can't open file" in words[-1]:
            raise UsageError(f"{self.folder} on {where} is not set up for releases", remedy="use `edgetune ship setup` first")
        if done.returncode in ERRORS and words:
            raise ERRORS[done.returncode](f"{where}: {words[-1]}")
        if done.returncode < 0:
            raise TargetError(f"{where}: the runner died by signal {-done.returncode} in {step}")
        raise TargetError(f"{where}: {step} ended with {done.returncode}: {words[-1] if words else 'no word'}")
