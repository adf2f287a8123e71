"""Figures of several tasks, for a person to read."""

from __future__ import annotations

import io
import json

from edgetune.artefacts import (
    Figures,
    Head,
    Measurement,
    MultiLabelFigures,
    OnnxModel,
    Preprocessing,
    RegressionFigures,
    Report,
    TaskFigures,
)
from edgetune.device.heads import column_names
from edgetune.report.compose import compose, write_report
from edgetune.report.console import draw
from edgetune.report.markdown import to_markdown
from edgetune.report.model_card import model_card
from edgetune.report.tasks import headline
from edgetune.report.words import metrics

COLOUR = Head("colour", "single-label", ("red", "blue"))
TAGS = Head("tags", "multi-label", ("dog", "a|b"), (0.5, 0.25))
POSE = Head("pose", "regression", ("yaw", "pitch"))
PART = {"precision": 0.75, "recall": 0.5, "f1": 0.6}
FIGURES = {
    "colour": Figures(
        images=8,
        top1_percent=75.0,
        top5_percent=None,
        precision_macro=0.75,
        recall_macro=0.5,
        f1_macro=0.6,
        ece=0.0123,
        per_class={name: {**PART, "images": 4.0} for name in COLOUR.columns},
        confusion=((3, 1), (1, 3)),
    ),
    "tags": MultiLabelFigures(
        images=9,
        map_percent=81.25,
        f1_macro=0.7,
        f1_micro=0.8,
        exact_percent=50.0,
        hamming_percent=12.5,
        per_label={
            "dog": {**PART, "ap": 0.9, "images": 9.0, "positives": 4.0, "threshold": 0.5},
            "a|b": {**PART, "ap": None, "images": 8.0, "positives": 0.0, "threshold": 0.25},
        },
    ),
    "pose": RegressionFigures(
        images=7,
        mae=1234.5678,
        rmse=0.012345,
        r2=0.875,
        per_value={
            "yaw": {"images": 7.0, "mae": 1.0, "rmse": 2.0, "r2": 0.875, "bias": -0.5, "std": 20.0},
            "pitch": {"images": 1.0, "mae": 1.0, "rmse": 2.0, "r2": None, "bias": 0.0, "std": 0.0},
        },
    ),
}


def report(heads: tuple[Head, ...] = (COLOUR, TAGS, POSE), known: tuple[str, ...] = ("colour", "tags", "pose")) -> Report:
    latency = {"p50_ms": 1.5, "p90_ms": 1.625}
    raw = {"models": {"int8": {"latency": latency, "footprint": None}}, "environment": {"architecture": "x86_64"}}
    return compose(
        title="tasks",
        heads=heads,
        shipped="int8",
        shipped_reason="it is faster",
        verdicts=(),
        figures={"int8": TaskFigures(heads={name: FIGURES[name] for name in known})},
        measurement=Measurement(where="a lab", is_target=True, raw=raw),
        sections={},
    )


def test_every_task_has_its_table_and_its_parts(tmp_path):
    page = to_markdown(report())
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings[2:7] == [
        "Classes of colour (int8)",
        "Confusion matrix of colour (int8)",
        "Labels of tags (int8)",
        "Values of pose (int8)",
        "Latency at batch 1 and footprint",
    ]
    for text in (
        "**colour (one of 2 classes)**\n\n|  | int8 |",
        "| top-1 % | 75.00 |",
        "**tags (any of 2 labels)**",
        "| mAP % | 81.25 |",
        "| images all right, % | 50.00 |",
        "**pose (2 values)**",
        "| MAE | 1235 |",
        "| RMSE | 0.01235 |",
        "| a\\|b | - | 0.750 | 0.500 | 0.600 | 0.250 | 0 | 8 |",
        "| yaw | 1 | 2 | 0.875 | -0.5 | 20 | 7 |",
        "| pitch | 1 | 2 | - | 0 | 0 | 1 |",
    ):
        assert text in page


def test_the_page_is_the_same_when_the_report_comes_back_from_its_file(tmp_path):
    write_report(report(), tmp_path)
    again = Report.model_validate(json.loads((tmp_path / "report.json").read_text()))
    assert again == report()
    assert (tmp_path / "report.md").read_text() == to_markdown(again)
    assert again.sections["data"]["class_names"] == list(column_names((COLOUR, TAGS, POSE)))


def test_a_task_of_which_nothing_is_known_says_so():
    page = to_markdown(report(known=("colour",)))
    assert page.count("Nothing is known of any test image.") == 2
    assert "Labels of tags" not in page


def test_the_main_figures_are_on_one_line():
    stream = io.StringIO()
    # As it comes back from its file, whose keys are sorted.
    draw(report(known=("pose", "tags", "colour")), stream)
    line = "int8: colour top-1 75.00 %, tags mAP 81.25 %, pose RMSE 0.01235 (R² 0.88), p50 1.50 ms, p90 1.62 ms, peak memory -"
    assert line in stream.getvalue().splitlines()
    assert headline(report((TAGS,), ("tags",)), "int8") == "mAP 81.25 %"
    assert headline(report(), "fp32") == headline(report(known=()), "int8") == "no accuracy"


def test_the_card_says_which_columns_are_whose():
    heads = (COLOUR, TAGS, POSE)
    model = OnnxModel(
        stage_name="quantize",
        precision="int8",
        sha256="0" * 64,
        size_bytes=3_500_000,
        opset=17,
        ir_version=8,
        classes=column_names(heads),
        heads=heads,
        preprocessing=Preprocessing(height=96, width=128),
    )
    card = model_card(report(), model, provenance={})
    for text in (
        "A network that tells of an image colour (one of 2 classes), tags (any of 2 labels), pose (2 values), int8, 3.50 MB",
        "  - `logits[:, 0:2]` colour (one of 2 classes): a class each; the largest is the decision",
        "  - `logits[:, 2:4]` tags (any of 2 labels): a label each; its sigmoid",
        "  - `logits[:, 4:6]` pose (2 values): the values themselves",
        "0 colour: red, 1 colour: blue, 2 tags: dog, 3 tags: a\\|b, 4 pose: yaw",
        "| mAP % | 81.25 |",
    ):
        assert text in card


def test_metrics_read_with_their_units():
    assert metrics({"top-1 %": 87.3}) == "top-1 87.30 %"
    assert (
        metrics({"tags: mAP %": 50.0, "age: RMSE": 4.31234, "age: R²": 0.87})
        == "tags: mAP 50.00 %, age: RMSE 4.312, age: R² 0.87"
    )
