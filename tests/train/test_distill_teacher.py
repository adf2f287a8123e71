from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch import nn

from edgetune.artefacts import Checkpoint, Preprocessing
from edgetune.device.heads import Head, default_heads
from edgetune.errors import DataError, UsageError
from edgetune.onnxfile import write_metadata
from edgetune.train.distill.network_teacher import NetworkTeacher, checkpoint_teacher
from edgetune.train.distill.onnx_teacher import onnx_teacher
from edgetune.train.distill.teacher import TeacherSource, column_order, resized

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.25, 0.0), (0.5, 0.25, 2.0)
WEIGHT = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0], [2.0, 0.0, -1.0]], np.float32)
BGR = default_heads(["blue", "green", "red"])
RGB = default_heads(["red", "green", "blue"])


class Tiny(nn.Module):
    """Features are the three channels' means; logits a matrix of them."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(images))
        return logits


def load_tiny(checkpoint: Checkpoint) -> nn.Module:
    network = Tiny()
    network.load_state_dict(load_file(checkpoint.weights_path))
    return network


def tiny_features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    assert isinstance(network, Tiny)
    return network.features(images)


def write_checkpoint(folder: Path, *, size: int = 8, weight: np.ndarray = WEIGHT, heads: Sequence[Head] = RGB) -> Checkpoint:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"head.weight": torch.from_numpy(weight), "head.bias": torch.zeros(3)}, folder / "model.safetensors")
    return Checkpoint(
        backbone="tiny",
        classes=heads[0].columns,
        heads=tuple(heads),
        preprocessing=Preprocessing(height=size, width=size),
        mean=MEAN,
        std=STD,
        weights={},
        val_metrics={},
        best_epoch=1,
        epochs=1,
    ).at(folder)


def source_of(checkpoint: Checkpoint, heads: Sequence[Head]) -> TeacherSource:
    return checkpoint_teacher(checkpoint, heads, load_tiny, tiny_features, device=CPU)


def write_onnx(
    path: Path,
    *,
    heads: Sequence[Head] | None = RGB,
    size: int = 8,
    batch: int | str = "N",
    input_type: int = TensorProto.UINT8,
    weight: np.ndarray = WEIGHT,
) -> Path:
    """Write what takes the mean of each channel in bytes and multiplies by a matrix."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["means", "weight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", input_type, [batch, size, size, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, "C"])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if heads is not None:
        write_metadata(model, heads, Preprocessing(height=size, width=size), {})
    onnx.save(model, path)
    return path


def views(count: int = 5, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_making_a_teacher_of_a_network_draws_no_random_numbers() -> None:
    network, before = Tiny(), torch.get_rng_state()
    # A GPU's random numbers are not put back by whoever loads a teacher, so nothing may be drawn at all.
    NetworkTeacher(network, mean=MEAN, std=STD, size=(8, 8), order=[0, 1, 2], device=CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_columns_are_found_by_their_names() -> None:
    assert column_order(BGR, RGB, "it") == [2, 1, 0]
    heads = (Head("a", "single-label", ("x", "y")), Head("b", "multi-label", ("x", "z")))
    assert column_order(heads[::-1], heads, "it") == [2, 3, 0, 1]


def test_other_columns_are_named_all_at_once() -> None:
    many = default_heads(["red", *(f"c{index}" for index in range(7))])
    with pytest.raises(DataError) as caught:
        column_order(many, RGB, "the teacher x")
    text = str(caught.value)
    assert text.startswith("the teacher x does not answer")
    assert "does not know; got blue, green" in text
    assert "knows beside them; got c0, c1, c2, c3, c4 and 2 more" in text


def test_another_kind_of_task_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"red: the teacher learnt another kind of task; got multi-label; expected single-label"
    ):
        column_order((Head("label", "multi-label", ("red", "green", "blue")),), RGB, "it")


def test_a_network_sees_normalised_views_and_answers_in_the_students_order(tmp_path: Path) -> None:
    teacher = source_of(write_checkpoint(tmp_path), BGR).create()
    means = (views().mean((2, 3)).numpy() - MEAN) / STD
    expected = (means @ WEIGHT.T)[:, ::-1]
    assert teacher.width == 3
    np.testing.assert_allclose(teacher.logits(views()), expected, rtol=1e-5, atol=1e-6)
    assert teacher.feature_width == 3
    np.testing.assert_allclose(teacher.features(views()), means, rtol=1e-5, atol=1e-6)


def test_a_network_is_not_changed_by_being_asked(tmp_path: Path) -> None:
    class Noted(Tiny):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert not self.training
            assert torch.is_inference_mode_enabled()
            return super().forward(images)

    teacher = checkpoint_teacher(
        write_checkpoint(tmp_path), RGB, lambda checkpoint: Noted().train(), tiny_features, device=CPU
    ).create()
    assert not teacher.logits(views()).requires_grad


def test_views_are_resampled_to_the_teachers_size() -> None:
    assert resized(views(), (8, 8)).shape == (5, 3, 8, 8)
    coarse = resized(views(size=16), (4, 4))
    assert coarse.shape == (5, 3, 4, 4)
    # With antialiasing every pixel counts: noise around one half comes out with a quarter of its deviation, or less.
    assert coarse.std() < 0.3 * views(size=16).std()


@pytest.mark.parametrize("size", [4, 16])
def test_a_teacher_of_another_size_is_asked_at_its_own(tmp_path: Path, size: int) -> None:
    plain = torch.full((2, 3, 8, 8), 0.75)
    expected = source_of(write_checkpoint(tmp_path / "a"), RGB).create().logits(plain)
    for other in (
        source_of(write_checkpoint(tmp_path / "b", size=size), RGB),
        onnx_teacher(write_onnx(tmp_path / f"{size}.onnx", size=size), RGB),
    ):
        assert other.create().logits(plain).shape == (2, 3)
    found = source_of(write_checkpoint(tmp_path / "b", size=size), RGB).create().logits(plain)
    torch.testing.assert_close(found, expected)


def test_the_identity_is_the_networks_and_not_the_students(tmp_path: Path) -> None:
    base = source_of(write_checkpoint(tmp_path / "a"), RGB).identity
    assert source_of(write_checkpoint(tmp_path / "copy"), BGR).identity == base
    assert source_of(write_checkpoint(tmp_path / "b", weight=WEIGHT + 1), RGB).identity != base
    assert source_of(write_checkpoint(tmp_path / "c", size=9), RGB).identity != base
    onnx_base = onnx_teacher(write_onnx(tmp_path / "a.onnx"), RGB).identity
    assert onnx_teacher(write_onnx(tmp_path / "same.onnx"), RGB).identity == onnx_base
    assert onnx_teacher(write_onnx(tmp_path / "b.onnx", weight=WEIGHT + 1), RGB).identity != onnx_base


@pytest.mark.parametrize("batch", ["N", 1])
def test_an_onnx_file_sees_bytes_and_answers_in_the_students_order(tmp_path: Path, batch: int | str) -> None:
    teacher = onnx_teacher(write_onnx(tmp_path / "t.onnx", batch=batch), BGR).create()
    seen = views(count=70)
    levels = np.rint(seen.numpy() * np.float32(255)).mean((2, 3))
    np.testing.assert_allclose(teacher.logits(seen), (levels @ WEIGHT.T)[:, ::-1], rtol=1e-4)
    assert teacher.width == 3


def test_an_onnx_file_shows_no_features(tmp_path: Path) -> None:
    teacher = onnx_teacher(write_onnx(tmp_path / "t.onnx"), RGB).create()
    assert teacher.feature_width is None
    with pytest.raises(UsageError, match=r"t\.onnx does not show its features"):
        teacher.features(views())


def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.onnx").write_bytes(b"not a graph at all")
    for path in (tmp_path / "t.onnx", tmp_path / "missing.onnx"):
        with pytest.raises(UsageError, match="is not an ONNX file"):
            onnx_teacher(path, RGB)


def test_a_file_without_names_is_refused_and_says_how_to_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"edgetune\.labels"):
        onnx_teacher(write_onnx(tmp_path / "t.onnx", heads=None), RGB)


def test_a_file_of_other_classes_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not know; got azure"):
        onnx_teacher(write_onnx(tmp_path / "t.onnx"), default_heads(["red", "green", "azure"]))


def test_a_file_with_a_float_input_is_refused(tmp_path: Path) -> None:
    source = onnx_teacher(write_onnx(tmp_path / "t.onnx", input_type=TensorProto.FLOAT), RGB)
    with pytest.raises(UsageError, match=r"does not keep the contract.*tensor\(float\)") as caught:
        source.create()
    assert "scaling belongs into the graph" in str(caught.value)


def test_a_file_of_fixed_batches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batches of 4 images only"):
        onnx_teacher(write_onnx(tmp_path / "t.onnx", batch=4), RGB).create()


def test_a_file_that_names_too_few_classes_is_refused(tmp_path: Path) -> None:
    two = default_heads(["red", "green"])
    teacher = onnx_teacher(write_onnx(tmp_path / "t.onnx", heads=two), two).create()
    with pytest.raises(UsageError, match="gives 3 logits, its metadata name 2 classes"):
        teacher.logits(views())


def test_other_channels_are_refused(tmp_path: Path) -> None:
    for source in (source_of(write_checkpoint(tmp_path), RGB), onnx_teacher(write_onnx(tmp_path / "t.onnx"), RGB)):
        with pytest.raises(DataError, match="takes images of 3 channels, these have 1"):
            source.create().logits(views()[:, :1])
