"""Signing a bundle with OpenSSH's keys, and verifying one as a device does."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.device.digest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, parse_json
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.install.candidate import HIGHEST_COUNTER, read_once
from edgetune.device.install.settings import PRODUCT
from edgetune.device.install.signature import MAX_SIGNATURE_BYTES, NAMESPACE, check_signature, principal
from edgetune.errors import ArtefactError, TargetError, UsageError
from edgetune.files import write_atomic
from edgetune.release.load import load_bundle
from edgetune.release.swap import replacing_folder

__all__ = ["Signed", "sign_bundle", "verify_bundle"]

MAGIC = b"SSHSIG"


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A bundle that says which release it is.

    Attributes:
        folder: the bundle.
        product: what it is a release of.
        counter: a device takes only a higher one than it ever committed.
        manifest_sha256: of the manifest that was signed.
        key: kind and fingerprint of the key, as `ssh-keygen -l` gives them; empty if it is not signed.
    """

    folder: Path
    product: str
    counter: int
    manifest_sha256: str
    key: str


def sign_bundle(
    folder: Path, key: Path | None, *, counter: int, product: str | None = None, output: Path | None = None
) -> Signed:
    """Write product and counter into a bundle's manifest and sign that.

    Up to here the same inputs give the same bytes; which release a bundle is, only its publisher can say.

    Args:
        folder: the bundle.
        key: a private key, or a public one whose private half an agent or a hardware key holds; None leaves the bundle
            unsigned, for devices that are set up for hashes only.
        counter: of this release, from 1 on.
        product: what it is a release of; None for what the bundle was built as.
        output: a folder for the signed copy; None signs in place.

    Raises:
        UsageError: the counter or the product cannot be, or something else is in the way of the copy.
        ArtefactError: the bundle is not what was built.
        TargetError: ssh-keygen did not sign.
    """
    manifest = {**load_bundle(folder), "counter": counter}
    manifest["product"] = product or manifest.get("product")
    if not 1 <= counter <= HIGHEST_COUNTER:
        raise UsageError(f"counter: got {counter}, expected a number from 1 to {HIGHEST_COUNTER}")
    if not PRODUCT.fullmatch(str(manifest["product"])):
        raise UsageError(f"product: got {manifest['product']!r}, expected letters, digits, dots and dashes, 64 at most")
    content = (json.dumps(manifest, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
    signature = b"" if key is None else _signature(content, key, manifest["product"])
    if output is None:
        _write(folder, content, signature)
    else:
        _write_copy(folder, output, content, signature)
    return Signed(
        folder=output or folder,
        product=manifest["product"],
        counter=counter,
        manifest_sha256=hashlib.sha256(content).hexdigest(),
        key=_fingerprint(signature) if signature else "",
    )


def _write(folder: Path, content: bytes, signature: bytes) -> None:
    # A signature of other bytes must not stay, whenever this ends.
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_atomic(folder / MANIFEST, content)
    if signature:
        write_atomic(folder / SIGNATURE, signature)


def _write_copy(folder: Path, output: Path, content: bytes, signature: bytes) -> None:
    if output.exists() and not (output / MANIFEST).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is in the way: it is not a bundle", remedy="choose another --output")
    with replacing_folder(output) as new:
        shutil.copytree(folder, new, dirs_exist_ok=True)
        _write(new, content, signature)


def _signature(content: bytes, key: Path, product: str) -> bytes:
    """Return the signature of a manifest, proven to be one of these very bytes.

    Raises:
        UsageError: there is no such key.
        TargetError: ssh-keygen is missing or did not sign.
    """
    if not key.is_file():
        raise UsageError(
            f"{key} is no key", remedy="make one: ssh-keygen -t ed25519 -f release_key; or give a .pub of an agent's"
        )
    # By stdin and stdout: given a file that has a signature already, ssh-keygen may keep that one and succeed.
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE]
    try:
        # Its stderr is the user's: it asks there for the touch of a hardware key.
        done = subprocess.run(command, input=content, stdout=subprocess.PIPE, check=False)
    except FileNotFoundError:
        raise TargetError("ssh-keygen is missing", remedy="install OpenSSH 8.1 or newer") from None
    if done.returncode or not done.stdout:
        raise TargetError(f"ssh-keygen did not sign with {key} (exit code {done.returncode})", remedy="see what it said above")
    with tempfile.TemporaryDirectory(prefix="edgetune-sign-") as scratch:
        signers = Path(scratch) / "allowed_signers"
        kind, blob = _key_in(done.stdout)
        signers.write_text(f'{principal(product)} namespaces="{NAMESPACE}" {kind} {base64.b64encode(blob).decode()}\n')
        try:
            check_signature(content, done.stdout, product, signers, None)
        except RunnerError as fault:
            raise TargetError(f"what ssh-keygen signed with {key} does not verify: {fault}") from fault
    return done.stdout


def _key_in(signature: bytes) -> tuple[str, bytes]:
    """Return the kind and the blob of the public key that an OpenSSH signature carries.

    Layout: PROTOCOL.sshsig of OpenSSH: magic, version, then strings with their lengths before them.

    Raises:
        ArtefactError: it is no such signature.
    """
    try:
        lines = signature.decode("ascii").split("-----")[2]
        packed = base64.b64decode("".join(lines.split()), validate=True)
        size = struct.unpack(">I", packed[10:14])[0]
        blob = packed[14 : 14 + size]
        kind = blob[4 : 4 + struct.unpack(">I", blob[:4])[0]].decode("ascii")
    except (ValueError, IndexError, struct.error):
        packed, blob, kind = b"", b"", ""
    if not packed.startswith(MAGIC) or not kind:
        raise ArtefactError(f"{SIGNATURE} is not an OpenSSH signature", remedy="sign the bundle again")
    return kind, blob


def _fingerprint(signature: bytes) -> str:
    kind, blob = _key_in(signature)
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"


def verify_bundle(folder: Path, signers: Path, *, product: str, revoked: Path | None = None) -> Signed:
    """Verify a bundle as a device does: the signature first, then what was signed, then every file.

    Args:
        folder: the bundle.
        signers: a file of OpenSSH's allowed signers with lines `release@PRODUCT namespaces="edgetune-bundle-v1" KEYTYPE KEY`.
        product: what it must be a release of.
        revoked: a file of revoked keys, or a KRL; None for none.

    Raises:
        ArtefactError: it is unsigned, signed by somebody else, or not what was signed.
        TargetError: there is no ssh-keygen that can tell.
    """
    try:
        content = read_once(folder / MANIFEST, MAX_MANIFEST_BYTES)
        if not (folder / SIGNATURE).exists():
            raise RunnerError(f"{folder} is not signed; use `edgetune sign`", ExitCode.ARTEFACT)
        signature = read_once(folder / SIGNATURE, MAX_SIGNATURE_BYTES)
        check_signature(content, signature, product, signers, revoked)
        manifest: dict[str, Any] = parse_json(content, MANIFEST)
    except RunnerError as fault:
        wrong = TargetError if fault.code == ExitCode.TARGET else ArtefactError
        raise wrong(str(fault), remedy="do not use it; fetch it again from its publisher") from fault
    if load_bundle(folder) != manifest:
        raise ArtefactError(f"{folder / MANIFEST} changed while it was read")
    counter = manifest.get("counter")
    if manifest.get("product") != product or type(counter) is not int:
        raise ArtefactError(
            f"{folder} is release {counter!r} of {manifest.get('product')!r}, expected one of {product!r}",
            remedy="give the product that it was signed for",
        )
    return Signed(
        folder=folder,
        product=product,
        counter=counter,
        manifest_sha256=hashlib.sha256(content).hexdigest(),
        key=_fingerprint(signature),
    )
