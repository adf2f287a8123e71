from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetune.device.preprocess import decode_image, fit
from edgetune.errors import ArtefactError, TargetError, UsageError
from edgetune.files import file_table, write_json
from edgetune.release import bundle as bundle_module
from edgetune.release.bundle import make_bundle
from edgetune.release.load import load_bundle
from edgetune.release.manifest import product_name
from edgetune.release.swap import replacing_folder
from edgetune.report.model_card import model_card

SESSION = {
    "providers": ["CPUExecutionProvider"],
    "graph_optimization": "all",
    "intra_op_threads": 1,
    "inter_op_threads": 1,
    "execution_mode": "sequential",
    "config": {},
}
PROVENANCE = {"edgetune": "0.1.0", "recipe_sha256": "a" * 64, "weights": {"source": "a pip package"}}


@pytest.fixture
def build(world, report, measurement):
    def build(folder: Path, **changes):
        given = {
            "folder": folder,
            "product": "colours",
            "model": world.int8,
            "reference": world.fp32,
            "dataset": world.dataset,
            "report": report,
            "card": model_card(report, world.int8, provenance=PROVENANCE),
            "measurement": measurement,
            "profile": world.profile,
            "session": SESSION,
            "limits": {
                "top1_drop_points": 1.0,
                "golden_max_abs": 0.5,
                **dict.fromkeys(("latency_p90_ms", "size_bytes", "peak_memory_bytes")),
            },
            "provenance": PROVENANCE,
        }
        return make_bundle(**{**given, **changes})

    return build


def siblings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def test_a_bundle_holds_everything_that_a_device_needs(build, world, tmp_path):
    bundle = build(tmp_path / "bundle")
    manifest = load_bundle(bundle.folder)
    assert sorted(manifest["files"]) == [
        "README.md",
        "golden/00.png",
        "golden/01.png",
        "golden/02.png",
        "golden/golden.json",
        "golden/logits.npy",
        "golden/tensors.npy",
        "labels.json",
        "model.onnx",
        "report.json",
        "runner.pyz",
    ]
    assert (manifest["schema"], manifest["product"], manifest["classes"]) == (1, "colours", list(world.int8.classes))
    assert manifest["model"]["sha256"] == world.int8.sha256 == manifest["files"]["model.onnx"]["sha256"]
    assert manifest["reference"]["sha256"] == world.fp32.sha256
    assert manifest["figures"]["accuracy"]["int8"]["top1_percent"] == 97.5
    assert (manifest["figures"]["measured_on"], manifest["figures"]["is_target"]) == ("a lab", False)
    assert manifest["verified"] == [
        {
            "architecture": "aarch64",
            "processor": "Cortex-A72",
            "features": ["asimd"],
            "onnxruntime": "1.31.0",
            "is_target": False,
        }
    ]
    assert json.loads((bundle.folder / "labels.json").read_text()) == list(world.int8.classes)
    assert bundle.size_bytes == sum(p.stat().st_size for p in bundle.folder.rglob("*") if p.is_file())


def test_golden_images_decode_to_their_tensors_and_the_tensors_give_their_logits(build, world, tmp_path):
    import onnxruntime

    golden = build(tmp_path / "bundle").folder / "golden"
    tensors, logits = np.load(golden / "tensors.npy"), np.load(golden / "logits.npy")
    entries = json.loads((golden / "golden.json").read_text())["images"]
    for entry, tensor in zip(entries, tensors, strict=True):
        decoded = fit(decode_image((golden / entry["file"]).read_bytes()), world.dataset.preprocessing)
        assert np.array_equal(decoded, tensor)
    session = onnxruntime.InferenceSession(str(world.int8.path), providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"image": tensors})[0], logits, atol=1e-5)
    assert [entry["label"] for entry in entries] == [0, 1, 3]


def test_the_same_inputs_give_the_same_bytes(build, tmp_path):
    one, two = build(tmp_path / "one"), build(tmp_path / "deep" / "two")
    assert one.to_json() == two.to_json()
    assert file_table(one.folder) == file_table(two.folder)


def test_nothing_in_the_manifest_tells_when_or_where_it_was_built(build, tmp_path):
    text = (build(tmp_path / "bundle").folder / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert os.uname().nodename not in text


@pytest.mark.parametrize("provenance", [{"data": "/home/me/photos"}, {"tools": [{"path": "~/bin"}]}])
def test_absolute_paths_are_kept_out_of_the_manifest(build, tmp_path, provenance):
    with pytest.raises(ValueError, match=r"provenance\."):
        build(tmp_path / "bundle", provenance=provenance)
    assert siblings(tmp_path / "bundle") == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("digits", "digits"),
        ("/home/me/my photos/", "my-photos"),
        ("..", "model"),
        (".hidden", "hidden"),
        ("Früchte & Äpfel", "Fr-chte-pfel"),
        ("", "model"),
        ("v" * 99, "v" * 64),
    ],
)
def test_a_product_becomes_a_name_for_a_folder_on_any_device(text, name):
    assert product_name(text) == name


def test_an_identical_bundle_is_left_alone_and_another_one_replaced(build, tmp_path):
    folder = tmp_path / "bundle"
    first = build(folder)
    inode = folder.stat().st_ino
    assert build(folder).manifest_sha256 == first.manifest_sha256
    assert folder.stat().st_ino == inode
    second = build(folder, product="colours-2")
    assert folder.stat().st_ino != inode
    assert second.manifest_sha256 != first.manifest_sha256
    assert siblings(folder) == ["bundle"]


def test_a_damaged_bundle_is_replaced_by_a_whole_one(build, tmp_path):
    first = build(tmp_path / "bundle")
    (first.folder / "model.onnx").write_bytes(b"")
    (first.folder / "empty").mkdir()
    assert build(tmp_path / "bundle").manifest_sha256 == first.manifest_sha256
    load_bundle(first.folder)


def test_something_else_in_the_way_is_not_deleted(build, tmp_path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="in the way"):
        build(tmp_path / "bundle")
    assert (tmp_path / "bundle" / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_leaves_the_old_bundle_and_no_rubbish(build, tmp_path, monkeypatch):
    first = build(tmp_path / "bundle")

    def full(path: Path, value: object) -> None:
        if path.name == "manifest.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_json(path, value)

    monkeypatch.setattr(bundle_module, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        build(tmp_path / "bundle", product="colours-2")
    assert load_bundle(first.folder)["product"] == "colours"
    assert siblings(first.folder) == ["bundle"]


def test_a_swap_that_a_kill_cut_in_two_is_undone_by_the_next_one(tmp_path):
    # The state between the two renames: the old folder moved away, the new one not yet in its place.
    (tmp_path / ".bundle.old").mkdir()
    (tmp_path / ".bundle.old" / "file").write_text("old")
    (tmp_path / ".bundle.new-abc").mkdir()
    with pytest.raises(RuntimeError, match="again"), replacing_folder(tmp_path / "bundle"):
        raise RuntimeError("killed again")
    assert (tmp_path / "bundle" / "file").read_text() == "old"
    assert siblings(tmp_path / "bundle") == ["bundle"]


def test_a_model_that_was_changed_after_it_was_built_is_not_released(build, world, tmp_path):
    changed = world.int8.model_copy(update={"sha256": "0" * 64}).at(world.int8.folder)
    with pytest.raises(ArtefactError, match="was changed"):
        build(tmp_path / "bundle", model=changed)


def test_a_provider_that_is_not_here_needs_a_golden_session_of_its_own(build, tmp_path):
    session = {**SESSION, "providers": ["NoSuchExecutionProvider"]}
    with pytest.raises(TargetError, match="NoSuchExecutionProvider"):
        build(tmp_path / "bundle", session=session)
    manifest = load_bundle(build(tmp_path / "bundle", session=session, golden_session=SESSION).folder)
    assert manifest["session"]["providers"] == ["NoSuchExecutionProvider"]
    assert manifest["golden"]["session"]["providers"] == ["CPUExecutionProvider"]


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden/01.png", "runner.pyz"])
def test_a_flipped_byte_is_named(build, tmp_path, name):
    folder = build(tmp_path / "bundle").folder
    content = bytearray((folder / name).read_bytes())
    content[0] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ArtefactError) as caught:
        load_bundle(folder)
    assert name in str(caught.value)
    assert caught.value.exit_code == 4


def test_missing_and_added_files_are_named_together(build, tmp_path):
    folder = build(tmp_path / "bundle").folder
    (folder / "labels.json").unlink()
    (folder / "golden" / "notes.txt").write_text("hello")
    with pytest.raises(ArtefactError) as caught:
        load_bundle(folder)
    assert [fault.problem for fault in caught.value.faults] == ["labels.json is missing", "golden/notes.txt was added"]


def test_a_folder_that_is_no_bundle_is_an_artefact_error(tmp_path):
    with pytest.raises(ArtefactError, match=r"manifest\.json is missing"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("table", "key", "value", "named"),
    [
        ("limits", "golden_max_abs", "0.5", "limits.golden_max_abs"),
        ("profile", "absent", None, "profile.absent"),
        ("model", "sha256", "0" * 64, "model.sha256"),
        ("session", "providers", [], "session.providers"),
        ("preprocessing", "width", "wide", "width"),
    ],
)
def test_a_manifest_that_does_not_say_what_it_must_is_refused(build, tmp_path, table, key, value, named):
    folder = build(tmp_path / "bundle").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[table][key] = value
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(ArtefactError, match=named):
        load_bundle(folder)


def test_classes_that_are_not_the_labels_are_refused(build, tmp_path):
    folder = build(tmp_path / "bundle").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["classes"].reverse()
    manifest["heads"][0]["columns"].reverse()
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(ArtefactError, match=r"labels\.json"):
        load_bundle(folder)


def test_the_bundles_own_runner_checks_it_and_predicts(build, tmp_path):
    folder = build(tmp_path / "bundle").folder
    run = {"cwd": folder, "capture_output": True, "text": True, "check": False}
    checked = subprocess.run([sys.executable, "runner.pyz", "check", ".", "--quick", "--json"], **run)
    assert checked.returncode == 0, checked.stderr
    golden = json.loads(checked.stdout)["golden"]
    assert (golden["decode"]["status"], golden["logits"]["bit_equal"]) == ("exact", True)
    predicted = subprocess.run([sys.executable, "runner.pyz", "predict", ".", "golden/02.png"], **run)
    assert predicted.returncode == 0, predicted.stderr
    assert predicted.stdout.startswith("golden/02.png: red ")


def test_the_python_of_the_model_card_runs_as_printed(build, tmp_path):
    folder = build(tmp_path / "bundle").folder
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["blue", "green", "red"]
    assert len([line for line in code.splitlines() if line]) <= 10
