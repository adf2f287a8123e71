"""A release that asks to be installed: one reading of its manifest, verified and parsed from the same bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..digest import MANIFEST, MAX_MANIFEST_BYTES, SIGNATURE, manifest_of, parse_json, table_faults
from ..exitcodes import ExitCode, RunnerError
from .place import Place
from .settings import PRODUCT, SIGNED, Settings
from .signature import MAX_SIGNATURE_BYTES, check_signature

MOST_FILES = 4096
LONGEST_NAME = 512
LONGEST_PART = 200
HIGHEST_COUNTER = 10**15
NEEDED = ("model.onnx", "labels.json")
"""What programs other than ours read through the link."""


@dataclass(frozen=True)
class Candidate:
    """A manifest that may be installed here.

    Attributes:
        manifest: all of it.
        manifest_sha256: of its bytes; it names the release.
        counter: the higher one is the newer release.
        files: name → sha256 and size in bytes.
    """

    manifest: dict[str, Any]
    manifest_sha256: str
    counter: int
    files: dict[str, tuple[str, int]]

    @property
    def release(self) -> str:
        """The name of its folder."""
        return f"{self.counter}-{self.manifest_sha256[:12]}"

    @property
    def size_bytes(self) -> int:
        """Of all files that the manifest lists."""
        return sum(size for _, size in self.files.values())


def read_candidate(place: Place, settings: Settings, content: bytes, signature: bytes) -> Candidate:
    """Verify a manifest, then parse the bytes that were verified.

    Args:
        place: whose signers count.
        settings: the device's.
        content: of `manifest.json`.
        signature: of `manifest.json.sig`; empty if there is none.

    Raises:
        RunnerError: ARTEFACT: it is unsigned, signed by somebody else, or does not say what an installation needs.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise RunnerError(f"{MANIFEST} is larger than the cap of {MAX_MANIFEST_BYTES} bytes", ExitCode.ARTEFACT)
    if settings.trust == SIGNED:
        if not signature:
            raise RunnerError("the bundle is not signed; use `edgetune sign`", ExitCode.ARTEFACT)
        check_signature(content, signature, settings.product, place.signers, place.revoked if settings.revocation else None)
    manifest = manifest_of(parse_json(content, MANIFEST), MANIFEST)
    faults = [*_own_faults(manifest, settings), *_table_faults(manifest["files"], settings)]
    if faults:
        raise RunnerError(f"{MANIFEST} is not that of a release for {settings.product}", ExitCode.ARTEFACT, tuple(faults))
    files = {name: (entry["sha256"], entry["size_bytes"]) for name, entry in manifest["files"].items()}
    return Candidate(manifest, hashlib.sha256(content).hexdigest(), manifest["counter"], files)


def stored_candidate(place: Place, settings: Settings, folder: Path) -> Candidate:
    """Return the candidate whose manifest and signature lie in a folder, verified anew.

    Raises:
        RunnerError: as `read_candidate`; or ARTEFACT: they cannot be read.
    """
    signed = settings.trust == SIGNED
    signature = read_once(folder / SIGNATURE, MAX_SIGNATURE_BYTES) if signed else b""
    return read_candidate(place, settings, read_once(folder / MANIFEST, MAX_MANIFEST_BYTES), signature)


def read_once(path: Path, most_bytes: int) -> bytes:
    """Return a regular file's content, and never follow a link to it.

    Raises:
        RunnerError: ARTEFACT: it cannot be read, or is larger than allowed.
    """
    try:
        with os.fdopen(os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as fault:
        raise RunnerError(f"{path.name} cannot be read: {fault.strerror}", ExitCode.ARTEFACT) from None
    if len(content) > most_bytes:
        raise RunnerError(f"{path.name} is larger than the cap of {most_bytes} bytes", ExitCode.ARTEFACT)
    return content


def _own_faults(manifest: dict[str, Any], settings: Settings) -> Iterator[str]:
    product, counter, model = manifest.get("product"), manifest.get("counter"), manifest.get("model")
    if not isinstance(product, str) or not PRODUCT.fullmatch(product) or product != settings.product:
        yield f"product: got {product!r}, expected {settings.product!r}"
    if type(counter) is not int or not 1 <= counter <= HIGHEST_COUNTER:
        yield f"counter: got {counter!r}, expected a number from 1 on; `edgetune sign` writes it"
    if not isinstance(model, dict) or model.get("file") != NEEDED[0]:
        yield f"model.file: expected {NEEDED[0]}"


def _table_faults(table: dict[str, Any], settings: Settings) -> Iterator[str]:
    if len(table) > MOST_FILES:
        yield f"files: {len(table)} of them, at most {MOST_FILES} are taken"
        return
    faults = table_faults(table)
    yield from faults
    yield from (f"files: {name} is missing" for name in NEEDED if name not in table)
    for name in table:
        parts = name.split("/")
        if len(os.fsencode(name)) > LONGEST_NAME or any(len(os.fsencode(part)) > LONGEST_PART for part in parts):
            yield f"files: {name[:40]!r}… is too long a name"
        yield from (f"{name!r} lies in {str(up)!r}, which is a file" for up in PurePosixPath(name).parents if str(up) in table)
    size = 0 if faults else sum(entry["size_bytes"] for entry in table.values())
    if size > settings.max_bundle_bytes:
        yield f"files: {size} bytes in all, this device takes {settings.max_bundle_bytes}"
