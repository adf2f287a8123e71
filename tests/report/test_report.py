from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgetune.artefacts import Figures, Measurement, NumericParity, OnnxModel, Preprocessing, Report, VerdictRow
from edgetune.device.heads import default_heads
from edgetune.errors import ExitCode
from edgetune.report.compose import compose, overall, write_report
from edgetune.report.console import draw
from edgetune.report.exit_code import exit_code
from edgetune.report.markdown import to_markdown
from edgetune.report.model_card import model_card, preprocessing_in_words


def row(verdict: str = "KEPT", name: str = "int8 file", **changes) -> VerdictRow:
    given = {"kind": "size", "figure": "1.10 MB", "limit": "≤ 2.00 MB", "reason": "" if verdict == "KEPT" else "because"}
    return VerdictRow(name=name, verdict=verdict, **{**given, **changes})


def figures(classes: list[str], confusion: list[list[int]], top1: float = 75.0) -> Figures:
    part = {"precision": 0.75, "recall": 0.5, "f1": 0.6, "images": 4.0}
    return Figures(
        images=8,
        top1_percent=top1,
        top5_percent=None,
        precision_macro=0.75,
        recall_macro=0.5,
        f1_macro=0.6,
        ece=0.0123,
        per_class={name: part for name in classes},
        confusion=tuple(tuple(counts) for counts in confusion),
    )


def measurement(is_target: bool = True) -> Measurement:
    latency = {"p50_ms": 1.5, "p90_ms": 1.625, "p99_ms": 2.0, "spread_percent": 0.4, "samples_ms": [[1.5]]}
    footprint = {"cold_start_ms": 12.0, "first_inference_ms": 3.0, "peak_memory_bytes": 9_000_000}
    models = {"fp32": {"latency": None, "footprint": None}, "int8": {"latency": latency, "footprint": footprint}}
    reason = "" if is_target else "processor lacks asimddp"
    raw = {"models": models, "environment": {"architecture": "x86_64", "cores": 4, "features": ["avx2", "fma"]}}
    return Measurement(where="a lab", is_target=is_target, stand_in_reason=reason, raw=raw)


def composed(**changes) -> Report:
    given = {
        "title": "cats and dogs for raspberry-pi-5",
        "heads": default_heads(["cat", "dog"]),
        "shipped": "int8",
        "shipped_reason": "int8 is 1.68x as fast as fp32",
        "verdicts": [row(), row("SKIPPED", "int8 latency, p90", figure="1.62 ms", limit="")],
        "figures": {"fp32": figures(["cat", "dog"], [[4, 0], [1, 3]], 87.5), "int8": figures(["cat", "dog"], [[3, 1], [1, 3]])},
        "measurement": measurement(),
        "sections": {
            "data": {"source": "pets", "counts": {"train": 30, "test": 8}},
            "quantize": {"steps": [{"name": "pnorm", "seconds": 1.25}, {"name": "bias_correction", "images": 256}]},
            "provenance": {"recipe_sha256": "ab12"},
            "run": {"command": "edgetune build recipe.toml", "seed": 0},
            "pruning": {"sparsity": 0.5},
        },
        "warnings": ["two images are nearly the same", "two images are nearly the same", "dog has 4 images"],
    }
    return compose(**{**given, **changes})


@pytest.mark.parametrize(
    ("verdicts", "word", "code", "strict_code"),
    [
        (["KEPT", "SKIPPED"], "KEPT", ExitCode.OK, ExitCode.OK),
        (["SKIPPED"], "KEPT", ExitCode.OK, ExitCode.OK),
        (["KEPT", "INCONCLUSIVE"], "INCONCLUSIVE", ExitCode.OK, ExitCode.INCONCLUSIVE),
        (["INCONCLUSIVE", "BROKEN", "KEPT"], "BROKEN", ExitCode.BROKEN, ExitCode.BROKEN),
    ],
)
def test_the_worst_verdict_is_the_overall_one_and_decides_the_exit_code(verdicts, word, code, strict_code):
    rows = [row(verdict) for verdict in verdicts]
    report = composed(verdicts=rows)
    assert overall(rows) == report.overall == word
    assert (exit_code(report), exit_code(report, strict=True)) == (code, strict_code)


def test_a_report_keeps_costs_without_samples_and_each_warning_once():
    report = composed()
    assert report.latency["int8"]["p90_ms"] == 1.625
    assert report.latency["fp32"]["p90_ms"] is None
    assert "samples_ms" not in report.latency["int8"]
    assert report.warnings == ("two images are nearly the same", "dog has 4 images")


def test_the_report_says_whether_it_was_measured_on_the_target():
    assert composed().where == "a lab: the target itself"
    assert "NOT the target" in composed(measurement=measurement(is_target=False)).where
    assert "asimddp" in composed(measurement=measurement(is_target=False)).where


def test_report_json_is_the_truth_and_everything_else_is_drawn_from_it(tmp_path):
    report = composed()
    write_report(report, tmp_path)
    again = Report.model_validate(json.loads((tmp_path / "report.json").read_text()))
    assert again == report
    assert (tmp_path / "report.md").read_text() == to_markdown(again)


def test_the_page_has_every_part():
    page = to_markdown(composed())
    headings = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert headings == [
        "Warnings",
        "Verdicts",
        "Accuracy on the test set",
        "Classes (int8)",
        "Confusion matrix (int8)",
        "Latency at batch 1 and footprint",
        "Data",
        "Quantization",
        "Environment",
        "Pruning",
        "Provenance",
        "How to run it again",
    ]
    for text in (
        "| top-1 % | 87.50 | 75.00 |",
        "| p90 | - | 1.62 ms |",
        "| cat | 3 | 1 |",
        "  - 2. name bias\\_correction, images 256",
        "  - train: 30",
        "```sh\nedgetune build recipe.toml\n```",
        "- seed: 0",
    ):
        assert text in page


def test_every_row_of_a_table_has_as_many_cells_as_its_header():
    hostile = ["a|b", "line\nbreak", "<script>", "`tick`"]
    size = range(len(hostile))
    page = to_markdown(
        composed(heads=default_heads(hostile), figures={"int8": figures(hostile, [[i * j for j in size] for i in size])})
    )
    assert "<script>" not in page.replace("\\<script\\>", "")
    width = None
    for line in page.splitlines():
        cells = line.replace("\\|", "").count("|")
        if not line.startswith("|"):
            width = None
            continue
        width = width or cells
        assert cells == width, line


def test_the_matrix_keeps_the_order_of_the_logits_when_the_report_comes_back_from_its_file(tmp_path):
    names = ["ten", "nine", "eight"]
    report = composed(heads=default_heads(names), figures={"int8": figures(names, [[7, 0, 1], [0, 5, 0], [0, 0, 3]])})
    write_report(report, tmp_path)
    again = Report.model_validate(json.loads((tmp_path / "report.json").read_text()))
    assert "| label ↓ decision → | ten | nine | eight |" in to_markdown(again)
    assert "| ten | 7 | 0 | 1 |" in to_markdown(again)


def test_many_classes_show_the_most_confused_pairs_instead_of_a_matrix():
    names = [f"class {i:02}" for i in range(21)]
    confusion = [[0] * 21 for _ in names]
    confusion[3][5], confusion[5][3], confusion[7][7] = 9, 2, 100
    page = to_markdown(composed(heads=default_heads(names), figures={"int8": figures(names, confusion)}))
    assert "Confusion matrix" not in page
    assert "| class 03 | class 05 | 9 |\n| class 05 | class 03 | 2 |" in page
    assert "class 07 | class 07" not in page


def test_a_model_without_accuracy_is_still_reported():
    page = to_markdown(composed(figures={}, verdicts=[row("BROKEN")]))
    assert "No model gave logits that are numbers." in page
    assert page.startswith("# cats and dogs for raspberry-pi-5\n\n**BROKEN**")


def test_a_pipe_gets_plain_lines():
    stream = io.StringIO()
    draw(composed(verdicts=[row(), row("BROKEN", "accuracy")]), stream)
    lines = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert lines[1] == "KEPT         int8 file  1.10 MB (limit: ≤ 2.00 MB)"
    assert lines[2] == "BROKEN       accuracy   1.10 MB (limit: ≤ 2.00 MB): because"
    assert lines[-1] == "BROKEN: ships int8; int8 is 1.68x as fast as fp32"
    assert "int8: top-1 75.00 %, p50 1.50 ms, p90 1.62 ms, peak memory 9.00 MB" in lines


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_table_whose_text_is_not_taken_for_markup(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    draw(composed(verdicts=[row(name="[bold]odd[/] name")], title="[red]title"), stream)
    drawn = stream.getvalue()
    assert "[bold]odd[/] name" in drawn
    assert "[red]title" in drawn
    assert "ships int8" in drawn


def model(**changes) -> OnnxModel:
    given = {
        "stage_name": "quantize",
        "precision": "int8",
        "sha256": "0" * 64,
        "size_bytes": 3_500_000,
        "opset": 17,
        "ir_version": 8,
        "classes": ("cat", "dog"),
        "preprocessing": Preprocessing(height=96, width=128, crop_fraction=0.875),
        "parity": NumericParity(images=4, max_abs=0.1, nmse=0.01, top1_agreement_percent=97.0, worst="cat/1.png"),
    }
    return OnnxModel(**{**given, **changes})


def test_the_card_has_the_contract_the_labels_the_figures_and_where_they_come_from():
    card = model_card(composed(measurement=measurement(is_target=False)), model(), provenance={"recipe_sha256": "ab12"})
    for text in (
        "input `image`: uint8 `[N, 96, 128, 3]`, RGB",
        "output `logits`: float32 `[N, 2]`",
        "python runner.pyz predict . image.jpg",
        "0 cat, 1 dog",
        "| top-1 % | 87.50 | 75.00 |",
        "NOT the target",
        "- recipe sha256: ab12",
        "- dog has 4 images",
        "3.50 MB",
    ):
        assert text in card


def test_the_card_shows_other_languages_with_the_models_own_numbers():
    card = model_card(composed(), model(), provenance={})
    cpp, rust = (card.split(f"```{language}\n")[1].split("```")[0] for language in ("cpp", "rust"))
    assert len(cpp.splitlines()) <= 12
    assert len(rust.splitlines()) <= 12
    assert "pixels(36864)" in cpp
    assert "shape{1, 96, 128, 3};" in cpp
    assert "i < 2;" in cpp
    assert "[1usize, 96, 128, 3]" in rust
    assert "vec![0u8; 36864]" in rust
    for text in (cpp, rust):
        assert "current/model.onnx" in text
        assert not [name for name in ("size", "shape", "colour", "columns") if f"{{{name}}}" in text]


@pytest.mark.parametrize(
    ("resize", "word"), [("crop", "87.5 % of its sides"), ("pad", "padded with white"), ("squash", "whatever its shape")]
)
def test_preprocessing_in_words(resize, word):
    text = preprocessing_in_words(Preprocessing(height=96, width=128, resize=resize, crop_fraction=0.875))
    assert word in text
    assert "128 x 96 pixels" in text


def test_a_thousand_labels_do_not_fill_the_card():
    many = model(classes=tuple(f"class {i}" for i in range(1000)))
    assert "1000 classes; see `labels.json`" in model_card(composed(), many, provenance={})


def test_drawing_a_report_needs_no_heavy_import():
    code = (
        "import sys, edgetune.report.console, edgetune.report.model_card, edgetune.report.compose, edgetune.report.exit_code;"
        "heavy = {'torch', 'timm', 'onnx', 'onnxruntime', 'sklearn', 'scipy', 'PIL', 'rich', 'numpy'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
