"""A bundle as an artefact in an OCI registry: one layer per file, pinned by the digest of its manifest.

After the OCI Image Specification 1.1 (manifests with an `artifactType`, the empty config) and the OCI Distribution
Specification 1.1 (uploads in one PUT, tokens as registries ask for them). The registry is trusted with nothing: what comes back
is checked against the digests, and the bundle's own signature is what devices believe.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.device.digest import MANIFEST, SIGNATURE, parse_json, table_faults
from edgetune.device.exitcodes import RunnerError
from edgetune.errors import ArtefactError, UsageError
from edgetune.progress import Progress
from edgetune.release.load import load_bundle
from edgetune.release.ship.registry import Registry
from edgetune.release.swap import replacing_folder

__all__ = ["Reference", "parse_reference", "pull", "push"]

SCHEME = "oci://"
ARTIFACT = "application/vnd.edgetune.bundle.v1"
LAYER = "application/vnd.edgetune.bundle.file.v1"
EMPTY = "application/vnd.oci.empty.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
TITLE = "org.opencontainers.image.title"
MAX_MANIFEST_BYTES = 4 << 20
REFERENCE = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?)/(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where an artefact is.

    Attributes:
        host: of the registry, with its port.
        name: of the repository.
        tag: a name for the artefact, which may come to mean another one; empty for none.
        digest: `sha256:…` of its manifest, which always means the same; empty for none.
    """

    host: str
    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag, digest = f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else ""
        return f"{SCHEME}{self.host}/{self.name}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Return what `oci://HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]` means.

    Raises:
        UsageError: it is something else.
    """
    found = REFERENCE.fullmatch(text)
    if found is None:
        raise UsageError(f"got {text!r}, expected oci://HOST[:PORT]/NAME[:TAG][@sha256:DIGEST]")
    return Reference(host=found["host"], name=found["name"], tag=found["tag"] or "", digest=found["digest"] or "")


def push(bundle: Path, reference: Reference, progress: Progress) -> Reference:
    """Put a bundle into a registry and return the reference that pins it.

    The same bundle always has the same digest. Files that the registry has already are not sent again.

    Args:
        bundle: a checked bundle, signed or not.
        reference: where it goes; with a tag, and without a digest.
        progress: told what is sent.

    Raises:
        UsageError: the reference has no tag, or has a digest.
        ArtefactError: the bundle is not what was built.
        TargetError: the registry cannot be reached or does not take it.
    """
    if not reference.tag or reference.digest:
        raise UsageError(f"{reference}: expected a tag and no digest, as oci://registry/name:1.0", remedy="give a tag")
    manifest = load_bundle(bundle)
    names = [MANIFEST, *([SIGNATURE] if (bundle / SIGNATURE).is_file() else []), *sorted(manifest["files"])]
    registry = Registry(reference.host, reference.name, "pull,push")
    config = {**_described(b"{}"), "mediaType": EMPTY, "data": "e30="}
    registry.put_blob(config["digest"], b"{}")
    layers = []
    for number, name in enumerate(names, 1):
        content = (bundle / name).read_bytes()
        layer = {"mediaType": LAYER, **_described(content), "annotations": {TITLE: name}}
        registry.put_blob(layer["digest"], content)
        layers.append(layer)
        progress.advance(f"to {reference.host}", number, len(names))
    text = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT,
            "config": config,
            "layers": layers,
            "annotations": {"edgetune.product": str(manifest.get("product")), "edgetune.counter": str(manifest.get("counter"))},
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    registry.put_manifest(reference.tag, MANIFEST_TYPE, text)
    return Reference(host=reference.host, name=reference.name, digest=_digest(text))


def pull(reference: Reference, folder: Path, progress: Progress) -> Reference:
    """Fetch a bundle, check everything, and put it into a folder; return the reference that pins what was fetched.

    Args:
        reference: with a digest, or a tag.
        folder: a bundle that is there already is replaced, unless it holds the same bytes.
        progress: told what is fetched.

    Raises:
        UsageError: the reference has neither tag nor digest, or something that is not a bundle is in the way.
        ArtefactError: what came is not what the digests say, or not a bundle.
        TargetError: the registry cannot be reached or does not have it.
    """
    if not reference.tag and not reference.digest:
        raise UsageError(f"{reference}: expected a digest or a tag", remedy="`edgetune ship` prints the digest when it pushes")
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is in the way: it is not a bundle", remedy="choose another folder")
    registry = Registry(reference.host, reference.name, "pull")
    text = registry.get_manifest(reference.digest or reference.tag, MANIFEST_TYPE, MAX_MANIFEST_BYTES)
    if reference.digest and _digest(text) != reference.digest:
        raise ArtefactError(f"{reference}: the registry answered with {_digest(text)}", remedy="do not use that registry")
    layers = _layers(reference, text)
    with replacing_folder(folder) as new:
        for number, (name, layer) in enumerate(layers.items(), 1):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            registry.get_blob(layer["digest"], layer["size"], new / name)
            progress.advance(f"from {reference.host}", number, len(layers))
        load_bundle(new)
    return Reference(host=reference.host, name=reference.name, digest=_digest(text))


def _layers(reference: Reference, text: bytes) -> dict[str, Mapping[str, Any]]:
    """Return the layers of a manifest by the names of their files.

    Raises:
        ArtefactError: it is not that of a bundle.
    """
    try:
        content = parse_json(text, str(reference))
        if content["artifactType"] != ARTIFACT:
            raise ArtefactError(f"{reference} is {content['artifactType']!r}, expected a bundle ({ARTIFACT})")
        layers = {str(layer["annotations"][TITLE]): layer for layer in content["layers"]}
        rows = {
            name: {"sha256": str(layer["digest"]).removeprefix("sha256:"), "size_bytes": layer["size"]}
            for name, layer in layers.items()
        }
        twice = len(layers) != len(content["layers"])
    except (RunnerError, KeyError, TypeError, AttributeError) as fault:
        raise ArtefactError(f"{reference} is not a bundle: {fault}") from fault
    faults = table_faults({name: row for name, row in rows.items() if name not in (MANIFEST, SIGNATURE)})
    if faults or twice or MANIFEST not in layers:
        raise ArtefactError(f"{reference} is not a bundle: {'; '.join(faults) or 'its layers are not the files of one'}")
    return layers


def _described(content: bytes) -> dict[str, Any]:
    return {"digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
