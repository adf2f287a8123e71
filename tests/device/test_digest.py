"""Strict JSON, and a bundle that is exactly what was built or is refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.device.digest import check_bundle, parse_json, read_json, sha256_file
from edgetune.device.exitcodes import ExitCode, RunnerError

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def build(folder: Path, names: tuple[str, ...] = ("model.onnx", "golden/00.png", "README.md")) -> Path:
    """Write a folder with these files and a manifest that lists them."""
    table = {}
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content of " + name.encode())
        table[name] = {"sha256": sha256_file(path), "size_bytes": path.stat().st_size}
    write_manifest(folder, {"schema": 1, "files": table})
    return folder


def write_manifest(folder: Path, manifest: object) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest))


def faults_of(folder: Path) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        check_bundle(folder)
    assert caught.value.code is ExitCode.ARTEFACT
    assert "\n" not in str(caught.value)
    return caught.value


def flip(path: Path, place: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_a_bundle_as_built_gives_its_manifest(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "manifest.json.sig").write_text("signature")
    assert check_bundle(tmp_path)["schema"] == 1


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    build(tmp_path / "release")
    (tmp_path / "current").symlink_to("release")
    assert set(check_bundle(tmp_path / "current")["files"]) == {"model.onnx", "golden/00.png", "README.md"}


@pytest.mark.parametrize(
    ("spoil", "faults"),
    [
        (lambda folder: flip(folder / "model.onnx"), ("model.onnx was changed",)),
        (lambda folder: flip(folder / "golden/00.png", -1), ("golden/00.png was changed",)),
        (lambda folder: (folder / "README.md").write_bytes(b"content of README.md!"), ("README.md was changed",)),
        (lambda folder: (folder / "model.onnx").write_bytes(b""), ("model.onnx was changed",)),
        (lambda folder: (folder / "model.onnx").unlink(), ("model.onnx is missing",)),
        (lambda folder: (folder / "golden/extra").touch(), ("golden/extra was added",)),
        (lambda folder: (folder / ".hidden").touch(), (".hidden was added",)),
        (lambda folder: (folder / "golden/manifest.json").touch(), ("golden/manifest.json was added",)),
        (lambda folder: (folder / "empty").mkdir(), ("empty/ was added",)),
        (lambda folder: os.mkfifo(folder / "pipe"), ("pipe is not a regular file",)),
        (
            lambda folder: [(folder / "model.onnx").unlink(), (folder / "model.onnx").mkdir()],
            ("model.onnx is not a regular file",),
        ),
    ],
)
def test_every_change_is_named(tmp_path: Path, spoil: Callable[[Path], object], faults: tuple[str, ...]) -> None:
    spoil(build(tmp_path))
    assert faults_of(tmp_path).faults == faults


def test_all_changes_are_named_at_once(tmp_path: Path) -> None:
    build(tmp_path)
    flip(tmp_path / "model.onnx")
    (tmp_path / "README.md").unlink()
    (tmp_path / "notes.txt").touch()
    assert set(faults_of(tmp_path).faults) == {"model.onnx was changed", "README.md is missing", "notes.txt was added"}


def test_links_are_refused_even_if_they_lead_to_the_right_bytes(tmp_path: Path) -> None:
    build(tmp_path / "bundle")
    (tmp_path / "bundle/model.onnx").rename(tmp_path / "model.onnx")
    (tmp_path / "bundle/model.onnx").symlink_to(tmp_path / "model.onnx")
    assert faults_of(tmp_path / "bundle").faults == ("model.onnx is a symbolic link",)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    build(tmp_path / "bundle")
    (tmp_path / "bundle/golden").rename(tmp_path / "golden")
    (tmp_path / "bundle/golden").symlink_to(tmp_path / "golden")
    assert "golden is a symbolic link" in faults_of(tmp_path / "bundle").faults


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "a\\b",
        "C:/x",
        "golden//00.png",
        "./model.onnx",
        "golden/../x",
        "",
        "manifest.json",
        "a\nb",
        "\ud800",
    ],
)
def test_names_that_leave_the_folder_are_refused_and_never_opened(tmp_path: Path, name: str) -> None:
    build(tmp_path / "bundle")
    (tmp_path / "secret").touch()
    manifest = json.loads((tmp_path / "bundle/manifest.json").read_text())
    manifest["files"][name] = {"sha256": EMPTY, "size_bytes": 0}
    write_manifest(tmp_path / "bundle", manifest)
    faults = faults_of(tmp_path / "bundle").faults
    assert repr(name) in faults[0]
    assert not any("is missing" in fault for fault in faults)


def test_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    build(tmp_path, ("readme.md", "README.md"))
    assert "are one name where case does not count" in faults_of(tmp_path).faults[0]


@pytest.mark.parametrize("entry", [None, {}, {"sha256": "ab", "size_bytes": 1}, {"sha256": EMPTY, "size_bytes": True}])
def test_entries_without_digest_and_size_are_refused(tmp_path: Path, entry: object) -> None:
    build(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["files"]["model.onnx"] = entry
    write_manifest(tmp_path, manifest)
    assert "'model.onnx' is listed without" in faults_of(tmp_path).faults[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"schema": 2, "files": {}}', "newer than 1"),
        ('{"files": {}}', "does not say its schema"),
        ('{"schema": true, "files": {}}', "does not say its schema"),
        ('{"schema": 1}', "has no table of files"),
        ('{"schema": 1, "files": []}', "has no table of files"),
        ('{"schema": 1, "schema": 1, "files": {}}', "duplicate key 'schema'"),
        ('{"schema": 1, "files": {"a": 1, "a": 2}}', "duplicate key 'a'"),
        ('{"schema": 1, "x": NaN}', "not a JSON number"),
        ("[]", "does not say its schema"),
        ("", "not valid JSON"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    assert words in str(faults_of(tmp_path))


def test_what_is_no_bundle_says_so(tmp_path: Path) -> None:
    assert "is not a folder" in str(faults_of(tmp_path / "nowhere"))
    assert "manifest.json is missing" in str(faults_of(tmp_path))
    (tmp_path / "elsewhere").write_text('{"schema": 1, "files": {}}')
    (tmp_path / "manifest.json").symlink_to("elsewhere")
    assert "not a regular file" in str(faults_of(tmp_path))


@pytest.mark.parametrize(
    "text", ["1e999", "-1e999", "NaN", "Infinity", "[1,", '{"a":1,"a":1}', "[" * 200_000, "\ud800".join("ab")]
)
def test_json_that_parsers_read_differently_is_refused(text: str) -> None:
    with pytest.raises(RunnerError) as caught:
        parse_json(text.encode("utf-8", "surrogatepass"), "it")
    assert caught.value.code is ExitCode.ARTEFACT


@pytest.mark.skipif(sys.version_info < (3, 11), reason="older Pythons convert any number of digits")
def test_a_number_of_a_million_digits_is_refused() -> None:
    with pytest.raises(RunnerError, match="not valid JSON"):
        parse_json(b"1" * 1_000_000, "it")


def test_a_file_above_the_cap_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text("[" + " " * 100)
    with pytest.raises(RunnerError, match="larger than the cap of 50 bytes"):
        read_json(path, max_bytes=50)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_all_other_json_comes_back(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), "it") == value
