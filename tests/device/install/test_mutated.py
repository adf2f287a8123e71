"""Manifests, signatures and bundles that hypothesis has spoilt."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgetune.device.exitcodes import RunnerError
from edgetune.device.install.activate import activate
from edgetune.device.install.candidate import read_candidate
from edgetune.device.install.settings import read_settings
from edgetune.device.install.setup import set_up

BYTES = st.tuples(
    st.sampled_from(["flip", "drop", "insert", "cut", "double", "swap"]), st.integers(0, 1 << 20), st.binary(max_size=4)
)


def mutated(content: bytes, steps: list[tuple[str, int, bytes]]) -> bytes:
    """Return bytes after some accidents and attacks."""
    for how, where, what in steps:
        at = where % (len(content) + 1)
        if how == "flip" and content:
            at %= len(content)
            content = content[:at] + bytes([content[at] ^ (what[:1] or b"\1")[0] or 1]) + content[at + 1 :]
        elif how == "drop":
            content = content[:at] + content[at + 1 + len(what) :]
        elif how == "insert":
            content = content[:at] + (what or b" ") + content[at:]
        elif how == "cut":
            content = content[:at]
        elif how == "double":
            content = content[:at] + content[at // 2 : at] + content[at:]
        elif how == "swap":
            content = content[at:] + content[:at]
    return content


def blob(signature: bytes) -> bytes:
    """Return what an armoured signature says, whatever its line ends; as OpenSSH, ignore the bits that base64 leaves over."""
    try:
        return base64.b64decode(b"".join(signature.split(b"-----")[2].split()))
    except (IndexError, ValueError):
        return signature


HYPOTHESIS = settings(suppress_health_check=list(HealthCheck), database=None)


@given(steps=st.lists(BYTES, min_size=1, max_size=3), which=st.sampled_from(["manifest", "signature"]))
@settings(HYPOTHESIS, max_examples=180)
def test_no_mutated_manifest_or_signature_is_accepted(place, head, steps, which):
    content, signature = head
    spoilt = mutated(content if which == "manifest" else signature, steps)
    assume(spoilt != content if which == "manifest" else blob(spoilt) != blob(signature))
    with pytest.raises(RunnerError):
        read_candidate(place, read_settings(place), *((spoilt, signature) if which == "manifest" else (content, spoilt)))


KEYS = st.sampled_from(["schema", "files", "product", "counter", "model", "profile", "classes"])
PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["../x", "model.onnx", "0" * 64])
ROWS = st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=8), PLAIN, max_size=3)
VALUES = PLAIN | ROWS | st.lists(ROWS, max_size=3) | st.dictionaries(st.text(max_size=8), ROWS, max_size=3)


@given(key=KEYS, value=VALUES, inside=st.booleans())
@settings(HYPOTHESIS, max_examples=100)
def test_no_signed_nonsense_crashes_or_leads_out(place, head, key, value, inside):
    hashed = replace(read_settings(place), trust="hash-only")
    manifest = json.loads(head[0])
    if inside and key == "files":
        manifest["files"] |= value if isinstance(value, dict) else {str(value): value}
    else:
        manifest[key] = value
    try:
        candidate = read_candidate(place, hashed, json.dumps(manifest).encode(), b"")
    except RunnerError:
        return
    assert all(".." not in name.split("/") and not name.startswith("/") for name in candidate.files)
    assert (candidate.manifest["product"], type(candidate.counter)) == ("colours", int)


@given(steps=st.lists(BYTES, min_size=1, max_size=2), number=st.integers(0, 100))
@settings(HYPOTHESIS, max_examples=40)
def test_no_mutated_file_of_a_bundle_is_installed(ready, hand, steps, number):
    place, sha256, old, files = ready
    name = sorted(files)[number % len(files)]
    spoilt = mutated(files[name], steps)
    assume(spoilt != files[name])
    target = place.incoming / sha256 / name
    for other, content in files.items():
        (place.incoming / sha256 / other).write_bytes(content)
    target.write_bytes(spoilt)
    with pytest.raises(RunnerError):
        activate(place, sha256, hand.shipper, proving=hand.quick, starting=hand.untimed)
    assert place.linked() == old


@pytest.fixture
def head(release, hand) -> tuple[bytes, bytes]:
    return hand.head_of(release(1))


@pytest.fixture
def ready(place, release, install, hand):
    """A device that answers, with another release uploaded and not yet activated; hashes only, for speed."""
    old = install(release(1))
    set_up(place, replace(read_settings(place), trust="hash-only"), None, None)
    folder = release(2)
    sha256 = hand.bring(place, folder)
    names = json.loads((folder / "manifest.json").read_text())["files"]
    return place, sha256, old, {name: (folder / name).read_bytes() for name in [*names, "manifest.json"]}
