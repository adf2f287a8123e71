"""Graphs written by hand, and the proof that simplifying them does not change what they compute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnx
import pytest

from edgetune.rewrites.simplify import simplify

from .writer import Writer, assert_same, names_of

Simplified = Callable[..., list[str]]


@pytest.fixture
def net() -> Writer:
    return Writer()


@pytest.fixture
def simplified() -> Simplified:
    """Simplify a model, prove that it computes the same, twice as well as once; return its operators in order."""

    def run(model: onnx.ModelProto) -> list[str]:
        untouched = model.SerializeToString()
        after, notes = simplify(model)
        assert model.SerializeToString() == untouched
        assert_same(model, after)
        assert simplify(after)[1] == ()
        assert bool(notes) or Counter(names_of(after)) == Counter(names_of(model))
        return names_of(after)

    return run
