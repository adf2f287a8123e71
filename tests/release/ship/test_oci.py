"""A bundle in a registry: the real one of Debian's docker-registry, on this machine; and one that lies."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from edgetune.cli.main import main
from edgetune.device.digest import check_bundle
from edgetune.errors import ArtefactError, TargetError, UsageError
from edgetune.files import file_table
from edgetune.progress import Silent
from edgetune.release.ship.oci import ARTIFACT, parse_reference, pull, push
from edgetune.release.ship.registry import CREDENTIALS


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry's host and port."""
    program = shutil.which("docker-registry")
    if program is None:
        assert os.environ.get("CI") != "true", "CI installs docker-registry"
        pytest.skip("there is no docker-registry here (Debian has a package of that name)")
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host},
        "log": {"level": "error"},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while not _answers(host):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield host
    finally:
        server.terminate()
        server.wait()


def _answers(host: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}/v2/", timeout=5):
            return True
    except OSError:
        return False


def test_there_and_back_it_is_the_same_bundle_pinned_by_its_digest(registry, release, tmp_path):
    folder = release(1)
    pinned = push(folder, parse_reference(f"oci://{registry}/team/colours:1.0"), Silent())
    assert str(pinned).startswith(f"oci://{registry}/team/colours@sha256:")
    assert push(folder, parse_reference(f"oci://{registry}/team/colours:again"), Silent()) == pinned
    assert pull(pinned, tmp_path / "back", Silent()) == pinned
    assert file_table(tmp_path / "back") == file_table(folder)
    assert pull(parse_reference(f"oci://{registry}/team/colours:1.0"), tmp_path / "by-tag", Silent()) == pinned
    kind = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    asked = urllib.request.Request(f"http://{registry}/v2/team/colours/manifests/1.0", headers=kind)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        manifest = json.loads(answer.read())
        assert answer.headers["Docker-Content-Digest"] == pinned.digest
    assert (manifest["artifactType"], len(manifest["layers"])) == (ARTIFACT, 11)


def test_from_a_registry_to_a_device_by_the_commands(registry, release, device, tmp_path, publisher, capsys):
    (tmp_path / "signers").write_bytes(publisher.signers())
    assert main(["ship", str(release(1)), f"oci://{registry}/colours:1"]) == 0
    pinned = capsys.readouterr().out.strip()
    there = ["--device", "local", "--root", str(Path(device.folder).parent)]
    assert main(["ship", pinned, *there]) == 0
    check_bundle(Path(device.folder) / "current")
    command = ["ship", "pull", pinned, str(tmp_path / "back"), "--signers", str(tmp_path / "signers"), "--product", "colours"]
    assert main(command) == 0
    assert "signed by ssh-ed25519" in capsys.readouterr().out
    assert main(["ship", f"oci://{registry}/colours:1", *there]) == 2
    assert "pin it" in capsys.readouterr().err


def test_what_the_registry_does_not_have_is_said(registry, tmp_path):
    for text in (f"oci://{registry}/colours:none", f"oci://{registry}/nothing@sha256:{'0' * 64}"):
        with pytest.raises(TargetError, match="404"):
            pull(parse_reference(text), tmp_path / "back", Silent())
    assert not (tmp_path / "back").exists()


def test_a_layer_that_changed_in_the_registrys_store_is_found_out(registry, release, tmp_path, tmp_path_factory):
    pinned = push(release(1), parse_reference(f"oci://{registry}/spoilt:1"), Silent())
    model = release(2) / "model.onnx"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    blob = f"data/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"
    store = next(tmp_path_factory.getbasetemp().glob(f"registry*/{blob}"))
    content = store.read_bytes()
    store.write_bytes(b"x" + content[1:])
    try:
        with pytest.raises(ArtefactError, match=r"something else for model\.onnx"):
            pull(pinned, tmp_path / "back", Silent())
    finally:
        store.write_bytes(content)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    "text",
    [
        "oci://",
        "oci://host",
        "oci://host/",
        "oci://host/Name:1",
        "oci://host/name:",
        "oci://host/name@sha256:12",
        "http://host/name:1",
    ],
)
def test_references_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="expected oci://"):
        parse_reference(text)


def test_a_push_wants_a_tag_and_a_pull_a_pin_or_a_tag(release, tmp_path):
    folder = release(1)
    for text in ("oci://127.0.0.1:1/name", f"oci://127.0.0.1:1/name:1@sha256:{'0' * 64}"):
        with pytest.raises(UsageError, match="expected a tag"):
            push(folder, parse_reference(text), Silent())
    with pytest.raises(UsageError, match="expected a digest or a tag"):
        pull(parse_reference("oci://127.0.0.1:1/name"), tmp_path / "back", Silent())
    with pytest.raises(TargetError, match="cannot be reached"):
        pull(parse_reference("oci://127.0.0.1:1/name:1"), tmp_path / "back", Silent())


class Lying(BaseHTTPRequestHandler):
    """A registry that answers as it is told, and wants a token."""

    manifest = b""
    blobs: ClassVar[dict[str, bytes]] = {}
    token = "secret"
    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if self.path.startswith("/token"):
            self.seen.append(given)
            self._answer(200, json.dumps({"token": self.token}).encode())
        elif given != f"Bearer {self.token}":
            port = self.server.server_address[1]
            challenge = f'Bearer realm="http://127.0.0.1:{port}/token",service="here",scope="repository:name:pull"'
            self._answer(401, b"", {"WWW-Authenticate": challenge})
        elif "/manifests/" in self.path:
            self._answer(200, self.manifest)
        else:
            self._answer(200, self.blobs.get(self.path.rpartition("/")[2], b""))

    def _answer(self, code: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def lying() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lying)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def layer(name: str, content: bytes) -> dict:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    Lying.blobs[digest] = content
    return {"digest": digest, "size": len(content), "annotations": {"org.opencontainers.image.title": name}}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"", "is not valid JSON"),
        (b"[]", "is not a bundle"),
        (b'{"artifactType": "x"}', "expected a bundle"),
        (b'{"a": 1, "a": 1}', "duplicate key"),
        ({"layers": []}, "not the files of one"),
        ({"layers": [{}]}, "is not a bundle"),
        ({"layers": [layer("manifest.json", b"{}"), layer("../evil", b"x")]}, "leaves the folder"),
        ({"layers": [layer("manifest.json", b"{}"), layer("/evil", b"x")]}, "is absolute"),
        ({"layers": [layer("manifest.json", b"{}"), layer("a", b"x"), layer("a", b"x")]}, "not the files of one"),
        ({"layers": [layer("manifest.json", b"{}"), {**layer("a", b"x"), "size": 1 << 60}]}, "something else for a"),
        ({"layers": [layer("manifest.json", b"{}"), {**layer("a", b"x"), "size": -1}]}, "size_bytes"),
        ({"layers": [layer("manifest.json", b"{}"), {**layer("a", b"x"), "digest": "md5:1"}]}, "sha256"),
        ({"layers": [layer("manifest.json", b"{}")]}, "schema"),
    ],
)
def test_a_registry_that_lies_is_found_out(lying, tmp_path, monkeypatch, manifest, words):
    monkeypatch.setenv(CREDENTIALS, "me:word")
    Lying.manifest = json.dumps({"artifactType": ARTIFACT, **manifest}).encode() if isinstance(manifest, dict) else manifest
    Lying.seen.clear()
    with pytest.raises(ArtefactError, match=words):
        pull(parse_reference(f"oci://{lying}/name:1"), tmp_path / "back", Silent())
    assert [path.name for path in tmp_path.iterdir()] in ([], ["state"])
    assert Lying.seen == ["Basic bWU6d29yZA=="]


def test_a_digest_that_is_not_the_manifests_is_refused(lying, tmp_path):
    Lying.manifest = b'{"layers": []}'
    with pytest.raises(ArtefactError, match="the registry answered with sha256:"):
        pull(parse_reference(f"oci://{lying}/name@sha256:{'0' * 64}"), tmp_path / "back", Silent())
