"""What a build and the commands around it refuse, and in which words."""

from __future__ import annotations

import shutil

import pytest

from edgetune.cli.main import main

from .line import arguments


@pytest.mark.parametrize("fault", ["flipped", "missing", "added"])
def test_check_refuses_a_bundle_that_is_not_what_was_built(copy, capsys, fault):
    bundle = copy / "bundle"
    name = {"flipped": "labels.json", "missing": "golden/tensors.npy", "added": "notes.txt"}[fault]
    path = bundle / name
    if fault == "flipped":
        content = bytearray(path.read_bytes())
        content[3] ^= 1
        path.write_bytes(content)
    elif fault == "missing":
        path.unlink()
    else:
        path.write_text("hello")
    for command in (["check", str(copy)], ["predict", str(bundle), str(bundle / "golden" / "00.png")]):
        assert main(command) == 4
        assert name in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["text", "floating", "quantized", "apart"])
def test_a_model_file_that_cannot_be_quantized_is_refused_with_the_reason(built, photos, tmp_path, capsys, fault):
    import onnx

    exported = onnx.load(next((built / "stages" / "export").glob("*/model.onnx")))
    path, word = tmp_path / "given.onnx", "not an ONNX file"
    if fault == "text":
        path.write_text("hello")
    elif fault == "floating":
        exported.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        onnx.save(exported, path)
        word = "got image: FLOAT [N, 32, 32, 3]"
    elif fault == "quantized":
        shutil.copy(built / "bundle" / "model.onnx", path)
        word = "quantized already"
    else:
        onnx.save(exported, path, save_as_external_data=True, location="weights.bin", size_threshold=64)
        (tmp_path / "weights.bin").unlink()
        word = "weights.bin: is not a file beside the model"
    assert main(["quantize", str(path), "--data", str(photos), "--output", str(tmp_path / "run")]) == 2
    assert word in capsys.readouterr().err


def test_an_output_that_cannot_be_a_folder_is_a_usage_error(photos, tmp_path, capsys):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["build", "--data", str(photos), "--output", str(output), *arguments()]) == 2
        assert "cannot be a run folder" in capsys.readouterr().err


def test_a_folder_of_images_given_as_the_recipe_is_told_apart(photos, capsys):
    assert main(["build", str(photos)]) == 2
    assert "--data" in capsys.readouterr().err


def test_check_with_images_of_other_classes_is_a_data_error(built, capsys):
    assert main(["check", str(built), "--quick", "--data", "digits"]) == 5
    assert "(10 classes), expected blue, green, red" in capsys.readouterr().err


def test_a_device_that_must_be_the_target_is_refused_before_training(photos, tmp_path, capsys):
    command = ["build", "--data", str(photos), "--output", str(tmp_path / "run"), "--target", "raspberry-pi-4"]
    assert main([*command, *arguments("verify.device=local")]) == 3
    assert "architecture" in capsys.readouterr().err
    assert not (tmp_path / "run" / "stages").exists()


def test_a_folder_with_faults_is_refused_with_all_of_them(photos, tmp_path, capsys):
    folder = shutil.copytree(photos, tmp_path / "faulty")
    (folder / "red" / "cut.png").write_bytes((folder / "red" / "00.png").read_bytes()[:400])
    shutil.copy(folder / "red" / "00.png", folder / "blue" / "stray.png")
    (folder / "empty").mkdir()
    assert main(["build", "--data", str(folder), "--output", str(tmp_path / "run"), *arguments()]) == 5
    talk = capsys.readouterr().err
    assert "cut.png" in talk
    assert "stray.png" in talk
    assert "empty" in talk
    assert "Traceback" not in talk


def test_an_unknown_backbone_is_refused_with_the_nearest_name(photos, tmp_path, capsys):
    command = ["train", "--data", str(photos), "--output", str(tmp_path / "run"), *arguments("model.backbone=mobilnetv2_100")]
    assert main(command) == 2
    assert "mobilenetv2_100" in capsys.readouterr().err
