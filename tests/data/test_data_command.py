from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetune.cli.main import main

Capture = pytest.CaptureFixture[str]
Fill = Callable[..., None]


def test_a_good_folder(tmp_path: Path, fill: Fill, capsys: Capture) -> None:
    fill(tmp_path / "photos", cats=5, dogs=5)
    assert main(["data", str(tmp_path / "photos")]) == 0
    out, err = capsys.readouterr()
    assert "10 images, 10 usable, 2 classes" in out
    assert "  cats        3       1       1\n" in out
    assert out.rstrip().endswith("a build can use these images")
    assert "Traceback" not in err


def test_a_folder_that_cannot_be_used(tmp_path: Path, fill: Fill, capsys: Capture) -> None:
    fill(tmp_path / "photos", cats=5, dogs=5)
    (tmp_path / "photos" / "empty").mkdir()
    (tmp_path / "photos" / "cats" / "broken.png").write_bytes(b"")
    assert main(["data", str(tmp_path / "photos")]) == 5
    out, err = capsys.readouterr()
    assert "problems (2)\n" in out
    assert "empty: a class without images" in out
    assert "cats/broken.png: is empty" in out
    assert "cannot be used: 2 problems" in err
    assert "Traceback" not in err


def test_json_and_settings(tmp_path: Path, fill: Fill, capsys: Capture) -> None:
    fill(tmp_path / "photos", cats=5, dogs=5)
    (tmp_path / "photos" / "cats" / "broken.png").write_bytes(b"")
    assert main(["data", str(tmp_path / "photos"), "--json", "--set", "data.corrupt=skip"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["corrupt"] == {"cats/broken.png": "is empty"}
    assert report["problems"] == []


def test_no_such_folder_and_no_such_key(tmp_path: Path, capsys: Capture) -> None:
    assert main(["data", str(tmp_path / "missing")]) == 5
    assert "there is no folder" in capsys.readouterr().err
    assert main(["data", str(tmp_path), "--set", "data.corupt=skip"]) == 2
    assert "did you mean 'corrupt'?" in capsys.readouterr().err
