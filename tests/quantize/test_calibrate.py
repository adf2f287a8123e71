"""Ranges of a real graph's activations, over batches of images."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest

from edgetune.errors import GraphError
from edgetune.profile import Quantization
from edgetune.progress import Silent
from edgetune.quantize.calibrate import calibrate
from edgetune.quantize.prepare import prepare
from edgetune.quantize.ranges import Method

METHODS: tuple[Method, ...] = get_args(Method)


@pytest.fixture
def small(net: Any) -> Any:
    return prepare(net.head(net.add("Relu", net.conv(net.stem(), group=8))), Quantization())


@pytest.mark.parametrize("method", METHODS)
def test_ranges_are_the_same_again_and_for_any_size_of_batch(method: Method, small: Any, dataset: Any) -> None:
    images = np.array(dataset.images("train"))

    def run(size: int) -> Any:
        def batches() -> Iterator[np.ndarray]:
            yield from (images[start : start + size] for start in range(0, len(images), size))

        return calibrate(small, batches, method=method, percentile=99.9, progress=Silent(), total=len(images))

    first, again, others = run(8), run(8), run(5)
    assert first.activations == again.activations
    assert first.activations.keys() == set(small.activation_names())
    for name, grid in first.activations.items():
        assert others.activations[name].scale == pytest.approx(grid.scale, rel=1e-3), name
    assert first.steps[-1]["step"].startswith(f"activation ranges ({method}")


def test_the_methods_differ_where_there_are_outliers(small: Any, dataset: Any) -> None:
    images = np.array(dataset.images("train"))
    found = {
        method: calibrate(small, lambda: iter([images]), method=method, percentile=99.0, progress=Silent(), total=len(images))
        for method in METHODS
    }
    assert len({str(graph.activations) for graph in found.values()}) == len(METHODS)


def test_more_images_take_no_more_memory(small: Any, dataset: Any) -> None:
    images = np.array(dataset.images("train"))[:8]

    def peak(batches: int) -> int:
        tracemalloc.start()
        calibrate(small, lambda: iter([images] * batches), method="entropy", progress=Silent(), total=8 * batches)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(1)  # what is imported and cached on the way
    few, many = peak(2), peak(64)
    assert few > images.nbytes
    assert many < 1.1 * few


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_file_near_fp32(method: Method, net: Any, quantized: Any, logits: Any, tmp_path: Any) -> None:
    x = net.stem()
    model = quantized(net.head(net.add("Relu", net.add("Add", x, net.conv(x)))), ranges=method, effort="fast")
    fp32, int8 = logits(tmp_path / "fp32" / "model.onnx"), logits(model.path)
    assert np.square(int8 - fp32).sum() < 0.03 * np.square(fp32 - fp32.mean(axis=0)).sum()
    assert any(step["step"].startswith(f"activation ranges ({method}") for step in model.steps)


def test_a_single_nan_is_found(net: Any, dataset: Any) -> None:
    """NaN without an infinity, in one batch only: comparisons with it are false, and must not lose it."""
    x = net.stem()
    # 0 / 0 where nothing passes the ReLU, 1 elsewhere.
    graph = prepare(net.head(net.conv(net.add("Div", x, x))), Quantization())
    images = np.array(dataset.images("train"))[:4]
    with pytest.raises(GraphError, match="NaN or an infinity on the calibration images"):
        calibrate(graph, lambda: iter([images]), method="minmax", progress=Silent(), total=4)
