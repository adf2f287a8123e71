"""A bundle in use: golden images, check and predict, in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgetune.device.bundle import read_bundle
from edgetune.device.decoders import WAYS
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.golden import check_golden
from edgetune.device.predict import predict, softmax
from edgetune.device.preprocess import Preprocessing
from edgetune.device.runner import main
from edgetune.device.session import open_session

Seal = Callable[[Path, dict[str, Any]], None]


def manifest_of(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "manifest.json").read_text())


def golden(bundle: Path) -> dict[str, Any]:
    shipped = read_bundle(bundle)
    return check_golden(open_session(shipped.path, shipped.session), shipped.golden, shipped.preprocessing)


def test_where_it_was_built_everything_is_exact(bundle: Path) -> None:
    found = golden(bundle)
    assert {way: one["status"] for way, one in found.pop("decoders").items()}["pillow"] == "exact"
    assert found == {
        "images": 3,
        "decode": {"status": "exact", "max_pixel_difference": 0, "reason": ""},
        "logits": {"max_abs": 0.0, "bit_equal": True, "finite": True, "top1_changed": 0},
    }


def test_pixels_that_differ_are_told(bundle: Path, seal: Seal) -> None:
    tensors = np.load(bundle / "golden/tensors.npy")
    tensors[1, 0, 0, 0] ^= 4
    np.save(bundle / "golden/tensors.npy", tensors)
    (bundle / "golden/02.png").write_bytes(b"junk")
    seal(bundle, manifest_of(bundle))
    decode = golden(bundle)["decode"]
    assert (decode["status"], decode["max_pixel_difference"]) == ("different", 255)
    assert "02.png is not a whole image" in decode["reason"]


def test_a_small_difference_of_pixels_is_told_in_levels(bundle: Path, seal: Seal) -> None:
    tensors = np.load(bundle / "golden/tensors.npy")
    tensors[1, 0, 0, 0] ^= 4
    np.save(bundle / "golden/tensors.npy", tensors)
    seal(bundle, manifest_of(bundle))
    assert golden(bundle)["decode"]["max_pixel_difference"] == 4


def test_logits_that_differ_are_told(bundle: Path, seal: Seal) -> None:
    logits = np.load(bundle / "golden/logits.npy")
    logits[0] = logits[0][::-1] + 1
    np.save(bundle / "golden/logits.npy", logits)
    seal(bundle, manifest_of(bundle))
    found = golden(bundle)["logits"]
    assert not found["bit_equal"]
    assert found["max_abs"] >= 1
    assert main(["check", str(bundle), "--quick"]) == ExitCode.BROKEN


@pytest.mark.parametrize("name", ["golden.json", "tensors.npy", "logits.npy"])
def test_a_golden_folder_that_is_none_is_refused(bundle: Path, name: str) -> None:
    session = open_session(bundle / "model.onnx", {})
    (bundle / "golden" / name).write_bytes(b"[]")
    with pytest.raises(RunnerError) as caught:
        check_golden(session, bundle / "golden", None)
    assert caught.value.code is ExitCode.ARTEFACT


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model", {"file": "elsewhere.onnx"}, "model.file"),
        ("classes", [], "classes"),
        ("session", {"threads": 1}, "session.threads"),
        ("preprocessing", {"height": 8}, "preprocessing: width: is missing"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(bundle: Path, seal: Seal, key: str, value: object, words: str) -> None:
    seal(bundle, {**manifest_of(bundle), key: value})
    with pytest.raises(RunnerError) as caught:
        read_bundle(bundle)
    assert caught.value.code is ExitCode.ARTEFACT
    assert words in str(caught.value)


def test_predict_says_what_the_network_says(bundle: Path) -> None:
    images = [bundle / f"golden/{number:02}.png" for number in range(3)]
    rows = predict(bundle, images, top=2)
    logits, classes = np.load(bundle / "golden/logits.npy"), manifest_of(bundle)["classes"]
    assert [row["image"] for row in rows] == [str(image) for image in images]
    for row, answer in zip(rows, logits, strict=True):
        assert row["label"] == classes[int(answer.argmax())]
        assert row["probability"] == pytest.approx(softmax(answer).max())
        assert [entry["label"] for entry in row["top"]] == [classes[index] for index in np.argsort(-answer)[:2]]
    assert all(sum(e["probability"] for e in row["top"]) == pytest.approx(1) for row in predict(bundle, images))


def test_all_unreadable_images_are_named_at_once(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.jpg").write_bytes(b"junk")
    with pytest.raises(RunnerError) as caught:
        predict(bundle, [tmp_path / "junk.jpg", bundle / "golden/00.png", tmp_path / "nowhere.png", tmp_path])
    assert caught.value.code is ExitCode.DATA
    assert [fault.split(" ")[0] for fault in caught.value.faults] == [
        str(tmp_path / "junk.jpg"),
        str(tmp_path / "nowhere.png"),
        str(tmp_path),
    ]


def test_predict_refuses_a_bundle_that_was_changed(bundle: Path) -> None:
    (bundle / "extra").touch()
    with pytest.raises(RunnerError, match="extra was added"):
        predict(bundle, [bundle / "golden/00.png"])


def test_a_model_that_does_not_fit_its_manifest_is_refused(
    bundle: Path, seal: Seal, classifier: Callable[..., onnx.ModelProto]
) -> None:
    seal(bundle, {**manifest_of(bundle), "classes": ["one", "two"]})
    with pytest.raises(RunnerError, match="got 3 logits, expected 2"):
        predict(bundle, [bundle / "golden/00.png"])
    onnx.save(classifier(side=9), bundle / "model.onnx")
    seal(bundle, manifest_of(bundle))
    with pytest.raises(RunnerError, match=r"got images .* of \[9, 9, 3\], expected \[8, 8, 3\]"):
        predict(bundle, [bundle / "golden/00.png"])


def test_an_answer_that_is_no_number_is_broken(bundle: Path, seal: Seal, classifier: Callable[..., onnx.ModelProto]) -> None:
    onnx.save(classifier(head=np.full((3, 4), np.inf, np.float32)), bundle / "model.onnx")
    seal(bundle, manifest_of(bundle))
    with pytest.raises(RunnerError) as caught:
        predict(bundle, [bundle / "golden/00.png"])
    assert caught.value.code is ExitCode.BROKEN
    assert main(["check", str(bundle), "--quick"]) == ExitCode.BROKEN


def test_check_reads_well(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(bundle), "--quick"]) == 0
    out, err = capsys.readouterr()
    # Ways of decoding that this machine has and that are not the contract have lines of their own.
    words = [word for word in (line.split()[0] for line in out.splitlines()) if word not in WAYS]
    assert words == ["digests", "machine", "provider", "decoding", "logits", "latency", "confidence"]
    assert "32 queries, quick: a look, not a measurement" in out
    assert "no p90: 32 queries; p90 takes at least 64" in out
    assert "logits     the same bits on 3 golden images" in out
    assert "digests" in err


def test_without_pillow_decoding_is_skipped_with_a_reason(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    decode = golden(bundle)["decode"]
    assert decode["status"] == "skipped"
    assert "pip install pillow" in decode["reason"]


def test_preprocessing_travels_as_json_and_refuses_nonsense() -> None:
    spec = Preprocessing(3, 4, "pad", "bilinear", 0.5, channels=5)
    assert Preprocessing.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    every = r"height: .*; width: .*; resize: .*; interpolation: .*; crop_fraction: .*; channels: "
    with pytest.raises(ValueError, match=every):
        Preprocessing(0, True, "stretch", "nearest", float("nan"), channels=65)
    with pytest.raises(ValueError, match=r"crop_fraction: is missing; colour: is not known"):
        Preprocessing.from_dict({**{k: v for k, v in spec.to_dict().items() if k != "crop_fraction"}, "colour": 1})


def test_a_manifest_of_before_there_was_a_choice_of_channels_means_rgb() -> None:
    old = {"height": 8, "width": 8, "resize": "crop", "interpolation": "bicubic", "crop_fraction": 1.0}
    assert Preprocessing.from_dict(old) == Preprocessing(8, 8, channels=3)
    assert Preprocessing(8, 8).to_dict() == {**old, "channels": 3}
