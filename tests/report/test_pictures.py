"""Pictures that are drawn at all, for every history and name that may occur; what they look like a person must judge."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetune.report.canvas import short_name
from edgetune.report.pictures import draw_confusion, draw_curves, draw_lr_find, draw_regression

Draw = Callable[[Path], None]


def line(epoch: int, **changes: Any) -> dict[str, Any]:
    """A line of a history; epoch 0 has no train loss."""
    score = 90.0 - 40.0 / (epoch + 1)
    return {
        "epoch": epoch,
        "train_loss": 1.0 / epoch if epoch else None,
        "val_loss": 1.2 / (epoch + 1),
        "val_score": score,
        "val_metrics": {"top-1 %": score},
        "lr": 1e-3 / (epoch + 1),
    } | changes


def confusion(classes: int) -> list[list[int]]:
    return [[90 if row == column else (row * 7 + column) % 5 for column in range(classes)] for row in range(classes)]


HISTORY = [line(epoch) for epoch in range(6)]
PICTURES: dict[str, Draw] = {
    "curves": lambda path: draw_curves(HISTORY, path),
    "confusion": lambda path: draw_confusion(confusion(3), ["cat", "dog", "horse"], path),
    "regression": lambda path: draw_regression([1.0, 2.0, 3.0], [1.1, 1.9, 3.3], "age in years", path),
    "lr-find": lambda path: draw_lr_find([1e-5, 1e-4, 1e-3, 1e-2], [2.0, 1.9, 1.2, 9.0], 3e-4, path),
}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 800 <= image.width <= 1200
        assert 600 <= image.height <= 1200
        return np.asarray(image.convert("RGB"))


def drawn(path: Path) -> int:
    """How many pixels are not the page's white."""
    picture = pixels(path)
    return picture.shape[0] * picture.shape[1] - count(picture, "#ffffff")


def count(picture: np.ndarray, colour: str) -> int:
    """How many pixels have exactly this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((picture == wanted).all(axis=2).sum())


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_the_same_figures_give_the_same_bytes(draw: Draw, tmp_path: Path) -> None:
    import matplotlib

    draw(tmp_path / "a.png")
    # What the user, or whoever else draws in this process, has set changes nothing, and is still set afterwards.
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30.0, "lines.linewidth": 9.0}):
        draw(tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30.0
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert b"tEXt" not in content  # Neither a date nor the version of a program.
    picture = pixels(tmp_path / "a.png")
    assert count(picture, "#ffffff") > 0.3 * picture.shape[0] * picture.shape[1]


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_nothing_is_cut_off_at_the_edges(draw: Draw, tmp_path: Path) -> None:
    draw(tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 255).all()


def test_neither_pyplot_nor_a_window_is_touched(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from edgetune.report import pictures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "pictures.draw_lr_find([1e-4, 1e-3], [2.0, 1.0], None, Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script, str(tmp_path / "a.png")], check=True)


HISTORIES = {
    "linear probe alone": HISTORY[:1],
    "one epoch": HISTORY[:2],
    "no epoch 0": HISTORY[1:],
    "many epochs": [line(epoch) for epoch in range(200)],
    "a loss that falls a thousandfold": [line(epoch, val_loss=2 * 0.5**epoch) for epoch in range(12)],
    "gaps": [line(0), line(1, val_loss=None), line(2, val_score=math.nan), line(3, train_loss=math.inf), line(4)],
    "nothing but gaps": [line(1, train_loss=None, val_loss=math.nan, val_score=math.nan, lr=None)],
    "a loss of 0": [line(epoch, val_loss=0.0) for epoch in range(3)],
    "several tasks": [line(epoch, val_metrics={"kind: top-1 %": 1.0, "$age$_: RMSE": 2.0}) for epoch in range(3)],
    "a regression": [line(epoch, val_score=-50.0, val_metrics={"MAE": 1.0, "RMSE": 2.0, "R²": -0.5}) for epoch in range(3)],
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_every_history_can_be_drawn(history: list[dict[str, Any]], tmp_path: Path) -> None:
    draw_curves(history, tmp_path / "curves.png")
    assert drawn(tmp_path / "curves.png")


def test_train_and_validation_are_both_seen(tmp_path: Path) -> None:
    draw_curves(HISTORY, tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    assert count(picture, "#0072b2") > 500
    assert count(picture, "#d55e00") > 500
    draw_curves(HISTORY[:1], tmp_path / "probe.png")
    assert count(pixels(tmp_path / "probe.png"), "#0072b2") < 200  # The legend alone: epoch 0 has no train loss.


def test_a_history_without_epochs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without epochs"):
        draw_curves([], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("classes", [1, 2, 20, 21, 60, 61, 300])
def test_every_number_of_classes_can_be_drawn(classes: int, tmp_path: Path) -> None:
    draw_confusion(confusion(classes), [f"class number {i}" for i in range(classes)], tmp_path / "c.png")
    picture = pixels(tmp_path / "c.png")
    assert (picture[:, 0] == 255).all()
    assert (picture[-1] == 255).all()


def test_names_that_would_break_a_picture(tmp_path: Path) -> None:
    names = ["", "$\\alpha$ and $", "犬", "a\nb\tc", "x" * 300, "\x07", "{}", "%s", "_^", "Ünïcode"]
    draw_confusion(confusion(len(names)), names, tmp_path / "c.png")
    assert drawn(tmp_path / "c.png")
    draw_regression([1.0, 2.0], [1.0, 2.0], "$x_ \n犬", tmp_path / "r.png")
    assert drawn(tmp_path / "r.png")


def test_names_as_they_are_drawn() -> None:
    assert short_name("Food & Drink", 3) == "Food & Drink"
    assert short_name("犬", 3) == "3: □"
    assert short_name("", 4) == "4: "
    shortened = short_name("recorded in the laboratory on 2024-03-07", 0)
    assert len(shortened) == 22
    assert shortened.startswith("recorded")
    assert shortened.endswith("2024-03-07")


def test_colours_are_shares_of_a_row_and_a_row_without_images_is_grey(tmp_path: Path) -> None:
    classes = [str(i) for i in range(30)]  # Too many for counts, which would be drawn over the colours.
    few, many = np.eye(30, dtype=int), np.eye(30, dtype=int) * np.arange(1, 31)[:, None]
    for name, counts in {"few": few, "many": many}.items():
        draw_confusion(counts.tolist(), classes, tmp_path / f"{name}.png")
    # The title says how many images there are; below it nothing differs.
    assert np.array_equal(pixels(tmp_path / "few.png")[60:], pixels(tmp_path / "many.png")[60:])
    few[7, 7] = 0
    draw_confusion(few.tolist(), classes, tmp_path / "empty.png")
    side = count(pixels(tmp_path / "empty.png"), "#e4e4e4")
    assert side > 10_000
    assert count(pixels(tmp_path / "few.png"), "#e4e4e4") < 100


@pytest.mark.parametrize("counts", [[[1, 2], [3, 4]], [[1, 2, 3]], [], [[]]])
def test_a_matrix_that_is_not_of_these_classes_is_refused(counts: list[list[int]], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="confusion matrix of 3 classes"):
        draw_confusion(counts, ["a", "b", "c"], tmp_path / "c.png")


def test_images_without_a_known_value_are_left_out(tmp_path: Path) -> None:
    draw_regression([1.0, math.nan, 3.0], [1.0, 77.0, 2.0], "age", tmp_path / "a.png")
    draw_regression([1.0, 3.0], [1.0, 2.0], "age", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("values", [[], [2.0], [3.0, 3.0], list(np.linspace(-1e6, 1e6, 5000))], ids=len)
def test_every_number_of_values_can_be_drawn(values: list[float], tmp_path: Path) -> None:
    draw_regression(values, values, "weight in kg", tmp_path / "r.png")
    assert drawn(tmp_path / "r.png")


def test_predictions_that_do_not_fit_the_truth_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one prediction for each truth"):
        draw_regression([1.0, 2.0], [1.0], "age", tmp_path / "r.png")


def test_the_suggested_rate_is_marked_and_a_blow_up_flattens_nothing(tmp_path: Path) -> None:
    rates = np.geomspace(1e-6, 10, 50).tolist()
    losses = [2.0 - 0.02 * i for i in range(40)] + [10.0 ** (i + 1) for i in range(8)] + [math.inf, math.nan]
    draw_lr_find(rates, losses, 1e-3, tmp_path / "a.png")
    draw_lr_find(rates, losses, None, tmp_path / "b.png")
    marked, plain = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert count(marked, "#d55e00") > 200
    assert count(plain, "#d55e00") == 0
    rows = np.flatnonzero((plain == [0, 0x72, 0xB2]).all(axis=2).any(axis=1))
    assert rows.max() - rows.min() > 300  # Of 600: the way down fills the picture.


def test_no_finite_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no loss is finite"):
        draw_lr_find([1e-4, 1e-3], [math.nan, math.inf], None, tmp_path / "a.png")
    with pytest.raises(ValueError, match="zip"):
        draw_lr_find([1e-4, 1e-3], [1.0], None, tmp_path / "a.png")


def test_a_picture_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "curves.png"
    draw_curves(HISTORY, path)
    assert [entry.name for entry in path.parent.iterdir()] == ["curves.png"]
    Image.open(io.BytesIO(path.read_bytes())).verify()
