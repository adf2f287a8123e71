"""The baseline file: written, shown, compared with, and refused when it is not what was written."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgetune.cli.main import main
from edgetune.errors import ArtefactError
from edgetune.gate.baseline import Decisions, read_baseline

FILE = "accepted.json"


@given(arrays.arrays(np.int64, st.tuples(st.integers(1, 40), st.integers(1, 4)), elements=st.integers(0, 70_000)))
def test_decisions_survive_being_packed(decided):
    assert np.array_equal(Decisions.pack(decided).unpack(len(decided)), decided)


@pytest.fixture
def accepted(bundle, photos, tmp_path, monkeypatch, capsys):
    """A baseline file of a bundle on the pictures."""
    monkeypatch.chdir(tmp_path)
    assert main(["baseline", "set", str(bundle("first")), "--data", str(photos), "--file", FILE]) == 0
    capsys.readouterr()
    return tmp_path / FILE


def rows_of(capsys) -> dict[str, dict]:
    return {row["name"]: row for row in json.loads(capsys.readouterr().out)["verdicts"]}


def test_a_later_candidate_is_compared_image_by_image_and_never_timed(accepted, bundle, photos, capsys):
    second = bundle("second", blind=0)
    assert main(["compare", FILE, str(second), "--data", str(photos), "--json"]) == 10
    rows = rows_of(capsys)
    assert rows["top-1"]["data"]["lost"] == 80
    assert (rows["top-1"]["verdict"], rows["top-1"]["data"]["test"]) == ("BROKEN", "Tango score")
    assert rows["top-1 of each class"]["data"]["broken"] == ["blue"]
    for name in ("latency, batch 1", "cold start", "peak memory"):
        assert rows[name]["verdict"] == "SKIPPED"
        assert "times of another machine or day are never compared" in rows[name]["reason"]
    assert rows["size of the file"]["verdict"] == "KEPT"


def test_on_other_images_only_the_shares_are_compared(accepted, bundle, photos, capsys):
    assert main(["compare", FILE, str(bundle("second")), "--data", str(photos), "--all-images", "--json"]) == 0
    rows = rows_of(capsys)
    assert "unpaired" in rows["top-1"]["data"]["test"]
    assert rows["decisions"]["reason"] == "the baseline was judged on other images"


def test_it_is_shown_in_words(accepted, capsys):
    assert main(["baseline", "show", "--file", FILE]) == 0
    shown = capsys.readouterr().out
    assert "colours int8" in shown
    assert "compared image by image on 320 images" in shown
    assert accepted.stat().st_size < 4000
    content = json.loads(accepted.read_text())
    assert content["environment"]["onnxruntime"]
    assert "host" not in content["environment"]


def test_without_images_the_manifest_speaks(bundle, tmp_path, capsys):
    file = tmp_path / "figures.json"
    assert main(["baseline", "set", str(bundle("first")), "--file", str(file)]) == 0
    assert "later comparisons are not image by image" in capsys.readouterr().out
    assert read_baseline(file).accuracy["top1_percent"] == 97.5


def test_only_a_bundle_can_be_accepted(model, tmp_path, capsys):
    assert main(["baseline", "set", str(model("bare").path), "--file", str(tmp_path / "x.json")]) == 2
    assert "only what can be shipped can be accepted" in capsys.readouterr().err


def test_what_was_not_written_by_us_is_refused(accepted):
    text = accepted.read_text()
    foreign = {"type": "u1", "columns": 1, "data": "eJwDAAAAAAE="}
    strange = Decisions.pack(np.full((320, 1), 4)).model_dump()
    for change, said in (
        ({"schema": 2}, "schema 2"),
        ({"kind": "recipe"}, "is not a baseline file"),
        ({"decisions": {"nobody": foreign}}, "nobody"),
        ({"decisions": {"label": foreign}}, "are not those of 320 images"),
        ({"decisions": {"label": {**foreign, "data": "?"}}}, "cannot be used"),
        ({"decisions": {"label": strange}}, "4 single-label columns"),
        ({"heads": []}, "cannot be used"),
        ({"extra": 1}, "extra"),
    ):
        accepted.write_text(json.dumps({**json.loads(text), **change}))
        with pytest.raises(ArtefactError, match=said):
            read_baseline(accepted)
    accepted.write_text("{")
    with pytest.raises(ArtefactError, match="is not JSON"):
        read_baseline(accepted)
