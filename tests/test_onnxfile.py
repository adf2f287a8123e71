from __future__ import annotations

import onnx
import pytest
from onnx import helper

from edgetune.artefacts import Preprocessing
from edgetune.device.heads import Head, default_heads
from edgetune.onnxfile import read_metadata, write_metadata

HEADS = (Head("colour", "single-label", ("red", "blue")), Head("tags", "multi-label", ("Ähre",), (0.25,)))
SIZE = Preprocessing(height=8, width=8)


def empty() -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([], "empty", [], []))


def test_what_was_written_is_read() -> None:
    model = empty()
    write_metadata(model, default_heads(("old",)), SIZE, {})
    write_metadata(model, HEADS, SIZE, {"edgetune": "1"})
    assert read_metadata(model) == (("colour: red", "colour: blue", "tags: Ähre"), SIZE, {"edgetune": "1"}, HEADS)


def test_a_file_from_before_there_were_heads_is_a_classifiers() -> None:
    model = empty()
    write_metadata(model, default_heads(("a", "b")), SIZE, {})
    for entry in [entry for entry in model.metadata_props if entry.key == "edgetune.heads"]:
        model.metadata_props.remove(entry)
    assert read_metadata(model).heads == default_heads(("a", "b"))


def test_a_file_of_nobodys_says_nothing() -> None:
    assert read_metadata(empty()) == ((), None, {}, ())


def test_heads_that_are_not_the_labels_are_refused() -> None:
    model = empty()
    write_metadata(model, HEADS, SIZE, {})
    for entry in model.metadata_props:
        if entry.key == "edgetune.labels":
            entry.value = '["red"]'
    with pytest.raises(ValueError, match="not what the labels name"):
        read_metadata(model)
