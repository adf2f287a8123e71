"""Signatures of manifests by OpenSSH: only `ssh-keygen -Y verify` with exit code 0 counts, and signers are read strictly."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
from pathlib import Path

from ..exitcodes import ExitCode, RunnerError

NAMESPACE = "edgetune-bundle-v1"
MAX_SIGNATURE_BYTES = 16 << 10
MAX_SIGNERS_BYTES = 1 << 20
DEADLINE_S = 30.0
ARMOUR = re.compile(rb"-----BEGIN SSH SIGNATURE-----\r?\n(?:[A-Za-z0-9+/=]+\r?\n)+-----END SSH SIGNATURE-----\s*")
SIGNER = re.compile(r"(\S+)\s+(?:(\S+)\s+)?((?:sk-)?(?:ssh|ecdsa)-\S+)\s+([A-Za-z0-9+/=]+)(?:\s.*)?")


def principal(product: str) -> str:
    """Return whom the releases of a product must be signed by."""
    return "release@" + product


def check_signature(content: bytes, signature: bytes, product: str, signers: Path, revoked: Path | None) -> None:
    """Return if a manifest was signed for a product by an allowed signer whose key is not revoked.

    Args:
        content: the manifest's bytes, the same that will be parsed.
        signature: of `manifest.json.sig`; it is no name for a bundle, since several signatures may be right.
        product: whose releases they are.
        signers: a file of OpenSSH's allowed signers; see `check_signers`.
        revoked: a file of revoked keys, or a KRL; None for none.

    Raises:
        RunnerError: ARTEFACT: the signature is not that, or a file that trust rests on is not safe. TARGET: there is no
            ssh-keygen that can tell.
    """
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise RunnerError(f"the signature is larger than the cap of {MAX_SIGNATURE_BYTES} bytes", ExitCode.ARTEFACT)
    if not ARMOUR.fullmatch(signature):
        raise RunnerError("manifest.json.sig is not an OpenSSH signature", ExitCode.ARTEFACT)
    check_signers(signers)
    if revoked is not None:
        _check_revoked(revoked)
    with tempfile.TemporaryDirectory(prefix="edgetune-sig-") as folder:
        copy = Path(folder) / "sig"
        copy.write_bytes(signature)
        command = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", principal(product), "-n", NAMESPACE, "-s", str(copy)]
        done = _run([*command, *(["-r", str(revoked)] if revoked is not None else [])], content)
    if done.returncode:
        words = " ".join((done.stderr + done.stdout).decode("utf-8", "replace").split()) or f"exit code {done.returncode}"
        raise RunnerError(
            f"the manifest is not signed by an allowed signer of {principal(product)}: {words[:300]}", ExitCode.ARTEFACT
        )


def _run(command: list[str], content: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            command, input=content, capture_output=True, timeout=DEADLINE_S, env={**os.environ, "LC_ALL": "C"}, check=False
        )
    except FileNotFoundError:
        raise RunnerError(
            "signatures cannot be verified here: ssh-keygen is missing; install OpenSSH 8.1 or newer, or set the device "
            "up with --hash-only",
            ExitCode.TARGET,
        ) from None
    except subprocess.TimeoutExpired:
        raise RunnerError(f"ssh-keygen did not end within {DEADLINE_S:g} s", ExitCode.TARGET) from None


def check_signers(path: Path) -> None:
    """Return if a file of allowed signers can be trusted: only its owner writes it, and every line says for what it signs.

    OpenSSH itself takes files that anyone may write, lines without namespaces (which then sign anything) and principals with
    wildcards (which then are anyone); times of validity fail on devices without a clock.

    Raises:
        RunnerError: ARTEFACT, with every fault.
    """
    check_signers_text(read_private(path), str(path))


def check_signers_text(content: bytes, name: str) -> None:
    """Return if every line of a file of allowed signers says for what it signs, and nobody is let in by a wildcard.

    Raises:
        RunnerError: ARTEFACT, with every fault.
    """
    lines = [line.strip() for line in content.decode("utf-8", "replace").splitlines()]
    rows = {number: line for number, line in enumerate(lines, 1) if line and not line.startswith("#")}
    faults = [f"line {number}: {fault}" for number, line in rows.items() for fault in _line_faults(line)]
    if not rows:
        faults.append("it names nobody")
    if faults:
        raise RunnerError(f"{name} cannot be trusted", ExitCode.ARTEFACT, tuple(faults))


def _line_faults(line: str) -> list[str]:
    found = SIGNER.fullmatch(line)
    if found is None:
        return [f'expected: release@PRODUCT namespaces="{NAMESPACE}" KEYTYPE KEY']
    principals, options = found.group(1), found.group(2) or ""
    faults = []
    if any(sign in principals for sign in '*?!"'):
        faults.append(f"the principal {principals} has a wildcard, which lets others sign, too")
    if options != f'namespaces="{NAMESPACE}"':
        faults.append(f'expected namespaces="{NAMESPACE}" as the only option, got {options or "none"}')
    return faults


def _check_revoked(path: Path) -> None:
    # OpenSSH takes an empty file as "nobody is revoked": that is also what a write that was cut off leaves.
    if not read_private(path).strip():
        raise RunnerError(f"{path} is empty; expected a list of revoked keys, or no such file at all", ExitCode.ARTEFACT)


def read_private(path: Path) -> bytes:
    """Return a file that only root or this user can have written.

    Raises:
        RunnerError: ARTEFACT: it cannot be read, is a link or too large, or others may write it or replace it.
    """
    try:
        handle = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as fault:
        raise RunnerError(f"{path} cannot be read: {fault.strerror}", ExitCode.ARTEFACT) from None
    with os.fdopen(handle, "rb") as file:
        for facts, name in ((os.fstat(handle), path), (path.absolute().parent.stat(), path.absolute().parent)):
            if facts.st_uid not in (0, os.geteuid()) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH) & ~_sticky(facts):
                raise RunnerError(
                    f"{name} can be changed by others (owner {facts.st_uid}, mode {stat.S_IMODE(facts.st_mode):o}); give it to "
                    "root or this user, and use chmod go-w",
                    ExitCode.ARTEFACT,
                )
        content = file.read(MAX_SIGNERS_BYTES + 1) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    if not content and path.exists() and not path.is_file():
        raise RunnerError(f"{path} is not a regular file", ExitCode.ARTEFACT)
    if len(content) > MAX_SIGNERS_BYTES:
        raise RunnerError(f"{path} is larger than the cap of {MAX_SIGNERS_BYTES} bytes", ExitCode.ARTEFACT)
    return content


def _sticky(facts: os.stat_result) -> int:
    """Return the permissions that do no harm in a folder where nobody can replace another's files."""
    return stat.S_IWGRP | stat.S_IWOTH if stat.S_ISDIR(facts.st_mode) and facts.st_mode & stat.S_ISVTX else 0
