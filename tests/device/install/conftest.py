"""Releases: the small network's bundle, signed with a real key; and a product's folder that takes them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from edgetune.device.environment import processor_facts
from edgetune.device.install.activate import activate, confirm
from edgetune.device.install.place import Place
from edgetune.device.install.receive import begin
from edgetune.device.install.settings import Settings, read_settings
from edgetune.device.install.setup import set_up
from edgetune.device.install.signature import NAMESPACE
from edgetune.device.install.state import read_state

PRODUCT = "colours"
SHIPPER = "a" * 32


def _sibling(name: str, path: Path):
    """Return a module of another room's tests: test folders are no packages."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_device = _sibling("device_world", Path(__file__).parents[1] / "conftest.py")


@dataclass(frozen=True)
class Publisher:
    """Makes keys, signs manifests and says who may sign.

    Attributes:
        folder: of its keys.
    """

    folder: Path

    def key(self, name: str = "release") -> Path:
        path = self.folder / name
        if not path.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path], check=True)
        return path

    def public(self, name: str = "release") -> str:
        return self.key(name).with_suffix(".pub").read_text().strip()

    def signers(self, *names: str, product: str = PRODUCT) -> bytes:
        lines = [f'release@{product} namespaces="{NAMESPACE}" {self.public(name)}' for name in names or ("release",)]
        return ("\n".join(lines) + "\n").encode()

    def sign(self, content: bytes, name: str = "release", namespace: str = NAMESPACE) -> bytes:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", self.key(name), "-n", namespace]
        return subprocess.run(command, input=content, capture_output=True, check=True).stdout


def dress(folder: Path, **changes: Any) -> None:
    """Give the small network's bundle what a release must say, and seal it again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]
    (folder / "labels.json").write_text(json.dumps(manifest["classes"]))
    model = (folder / "model.onnx").read_bytes()
    manifest.update(
        product=PRODUCT,
        model={
            "file": "model.onnx",
            "precision": "fp32",
            "sha256": hashlib.sha256(model).hexdigest(),
            "size_bytes": len(model),
        },
        profile={
            "architecture": processor_facts()["architecture"],
            "features": [],
            "absent": [],
            "min_onnxruntime": "1.17",
            "tolerance": {"logit_max_abs": 0.5},
        },
        limits={
            "golden_max_abs": 0.5,
            "top1_drop_points": 1.0,
            "latency_p90_ms": None,
            "size_bytes": None,
            "peak_memory_bytes": None,
        },
        figures={"accuracy": {"fp32": {"top1_percent": 90.0}}},
    )
    _device.seal_bundle(folder, {**manifest, **changes})


@pytest.fixture(scope="session")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return Publisher(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as it was built, before it is a release."""
    folder = _device.make_bundle(tmp_path_factory.mktemp("built") / "bundle")
    dress(folder)
    return folder


def reseal(folder: Path, publisher: Publisher, key: str = "release", **changes: Any) -> Path:
    """Change a release's manifest, list its files as they are, and sign it again."""
    (folder / "manifest.json.sig").unlink(missing_ok=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]
    _device.seal_bundle(folder, {**manifest, **changes})
    (folder / "manifest.json.sig").write_bytes(publisher.sign((folder / "manifest.json").read_bytes(), key))
    return folder


def make_release(built: Path, folder: Path, publisher: Publisher, number: int, **changes: Any) -> Path:
    """Copy a bundle and sign it as a release."""
    shutil.copytree(built, folder)
    return reseal(folder, publisher, **{"counter": number, **changes})


@pytest.fixture
def release(built: Path, publisher: Publisher, tmp_path: Path):
    """The function that makes a signed release with a counter."""

    def make(number: int, **changes: Any) -> Path:
        return make_release(built, tmp_path / f"release-{number}", publisher, number, **changes)

    return make


@pytest.fixture
def again(publisher: Publisher):
    """The function that signs a changed release again."""
    return lambda folder, **changes: reseal(folder, publisher, **changes)


@pytest.fixture
def place(publisher: Publisher, tmp_path: Path) -> Place:
    """A product's folder that was set up and holds no release."""
    place = Place(tmp_path / "device" / PRODUCT)
    set_up(place, Settings(product=PRODUCT, allow_volatile=True), publisher.signers(), None)
    return place


def quick(folder: Path, seconds: float) -> dict[str, Any]:
    """Stand in for the golden images where a test is about something else."""
    return {"model_sha256": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()}


def untimed(place: Place, release: str) -> None:
    """Stand in for the timer likewise."""


def head_of(folder: Path) -> tuple[bytes, bytes]:
    signature = folder / "manifest.json.sig"
    return (folder / "manifest.json").read_bytes(), signature.read_bytes() if signature.exists() else b""


def bring(place: Place, folder: Path, shipper: str = SHIPPER, forgive: bool = False) -> str:
    """Do what a host does before it activates; return the manifest's digest."""
    begun = begin(place, *head_of(folder), shipper, forgive)
    for row in begun["needed"]:
        target = Path(begun["folder"]) / row["name"]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / row["name"], target)
    return str(begun["manifest_sha256"])


def installed(place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch, forgive: bool = False) -> str:
    """Install a release, in this process and quickly; return its name."""
    sha256 = bring(place, folder, forgive=forgive)
    answer = activate(place, sha256, SHIPPER, forgive, proving=quick, starting=untimed)
    with monkeypatch.context() as patch:
        patch.setattr("edgetune.device.install.activate.is_tried", lambda place: True)
        patch.setattr("edgetune.device.install.back.is_tried", lambda place: True)
        confirm(place, sha256)
    return str(answer["release"])


@pytest.fixture
def install(place: Place, monkeypatch: pytest.MonkeyPatch):
    """The function that installs a release."""
    return lambda folder, **options: installed(place, folder, monkeypatch, **options)


@pytest.fixture(scope="session")
def hand():
    """The functions that a test calls by hand: bring, quick, untimed, head_of."""

    class Hand:
        bring = staticmethod(bring)
        quick = staticmethod(quick)
        untimed = staticmethod(untimed)
        head_of = staticmethod(head_of)
        shipper = SHIPPER

    return Hand


@pytest.fixture
def stage(place, release, install) -> Iterator[Path]:
    """A folder as the script wants it, in memory: what is durable is another test's matter, and disks are slow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="edgetune-crash-") as name:
        folder = Path(name)
        set_up(place, replace(read_settings(place), trust="hash-only"), None, None)
        names = [install(release(number)) for number in (1, 2)]
        shutil.copytree(place.folder, folder / "place", symlinks=True)
        second = release(20, counter=20)
        shutil.copytree(second, folder / "release-2")
        shutil.copytree(release(30), folder / "release-3")
        names = {"install": [_name(second)], "rollback": [names[0]]}
        (folder / "names.json").write_text(json.dumps(names))
        assert read_state(place).current != names["rollback"][0]
        yield folder


def _name(bundle: Path) -> str:
    content = (bundle / "manifest.json").read_bytes()
    return f"{json.loads(content)['counter']}-{hashlib.sha256(content).hexdigest()[:12]}"
