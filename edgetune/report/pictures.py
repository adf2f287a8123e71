"""Pictures for people: the curves of a training, a confusion matrix, a regression, the search for a learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.report.canvas import BLUE, INK, VERMILLION, figure_at, in_letters, short_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["draw_confusion", "draw_curves", "draw_lr_find", "draw_regression"]

NO_IMAGES = "#E4E4E4"
COUNTS_UP_TO, NAMES_UP_TO = 20, 60
"""Classes of a confusion matrix up to which counts, and names, can be read."""


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, score and learning rate over the epochs.

    Args:
        history: a line per epoch, in order: `epoch`, `train_loss`, `val_loss`, `val_score` (larger is better), `val_metrics`
            by name with the unit, and `lr`. Epoch 0 is before fine-tuning: its `train_loss` and `lr` are not drawn, nor is
            what is missing, None or not finite.
        path: of the PNG file, 1000 x 900 pixels.

    Raises:
        ValueError: the history is empty.
    """
    if not history:
        raise ValueError("a history without epochs cannot be drawn")
    epochs = [int(line["epoch"]) for line in history]
    learnt = [line if line["epoch"] > 0 else {} for line in history]
    train, val, score, rates = (
        _column(learnt, "train_loss"),
        _column(history, "val_loss"),
        _column(history, "val_score"),
        _column(learnt, "lr"),
    )
    with figure_at(path, 1000, 900) as figure:
        panels = figure.subplots(3, 1, sharex=True, height_ratios=[4, 3, 1.6])
        _curve(panels[0], epochs, train, BLUE, "o", "train (as optimised)")
        _curve(panels[0], epochs, val, VERMILLION, "s", "validation")
        _log_if_wide(panels[0], [*train, *val])
        panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0.1)
        panels[0].set(title="Loss", ylabel="loss")
        _curve(panels[1], epochs, score, VERMILLION, "s", "validation")
        name = _score_name(history[-1].get("val_metrics", {}))
        panels[1].set(title=f"Validation {name}{_mark_best(panels[1], epochs, score)}", ylabel=name)
        _curve(panels[2], epochs, rates, INK, "o", "learning rate")
        panels[2].set(
            title=f"Learning rate at the end of the epoch{': no epochs' * (not any(learnt))}",
            ylabel="learning rate",
            ylim=(0, _ceiling(rates)),
        )
        _epoch_axis(panels[2], epochs)


def _column(history: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    values = [line.get(key) for line in history]
    return [math.nan if value is None or not math.isfinite(value) else float(value) for value in values]


def _curve(axes: Axes, x: Sequence[int], y: Sequence[float], colour: str, marker: str, label: str) -> None:
    # A point between two gaps is seen by its marker alone.
    axes.plot(x, y, color=colour, marker=marker if len(x) <= 60 else "", label=label)


def _log_if_wide(axes: Axes, values: Sequence[float]) -> None:
    """Show a loss that falls by more than a factor of 30 on a logarithmic axis."""
    found = [value for value in values if math.isfinite(value)]
    if found and min(found) > 0 and max(found) > 30 * min(found):
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)


def _plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis 0.01, 0.02, 0.05, 0.1 instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _score_name(metrics: Mapping[str, float]) -> str:
    """Return what the score is called: of a single figure its name, else what it sums up."""
    if len(metrics) > 1 and all(name.endswith(("MAE", "RMSE", "R²")) for name in metrics):
        return "100 R²"
    name = next(iter(metrics)) if len(metrics) == 1 else "score (mean of all tasks)"
    return f"{name.removesuffix(' %')} (%)" if name.endswith(" %") else name


def _mark_best(axes: Axes, epochs: Sequence[int], score: Sequence[float]) -> str:
    """Ring the best score, and return what it is."""
    found = [(value, -epoch) for value, epoch in zip(score, epochs, strict=True) if math.isfinite(value)]
    if not found:
        return ""
    best, at = max(found)
    axes.plot([-at], [best], marker="o", markersize=13, markerfacecolor="none", markeredgecolor=INK, linestyle="")
    axes.margins(y=0.12)  # Room for the ring.
    return f": best {best:.2f} at epoch {-at}"


def _ceiling(values: Sequence[float]) -> float:
    return 1.1 * max((value for value in values if math.isfinite(value)), default=0.0) or 1.0


def _epoch_axis(axes: Axes, epochs: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=12))
    margin = 0.02 * max(1, epochs[-1] - epochs[0])
    axes.set_xlim(epochs[0] - margin, epochs[-1] + margin)
    axes.set_xlabel("epoch (0: before fine-tuning)" if epochs[0] == 0 else "epoch")


def draw_confusion(confusion: Sequence[Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Draw how often images of each class were taken for each.

    A row's colours are its shares; a class without images is grey. Counts are written for up to 20 classes, names for up to 60.

    Args:
        confusion: `[C][C]` counts; rows are labels, columns are decisions.
        classes: their names, in the same order.
        path: of the PNG file, 800 to 1200 pixels wide.

    Raises:
        ValueError: the matrix is empty, or has not a row and a column for each class.
    """
    import numpy as np
    from matplotlib.colors import PowerNorm

    counts = np.asarray(confusion, dtype=np.int64)
    many = len(classes)
    if not many or counts.shape != (many, many):
        raise ValueError(f"a confusion matrix of {many} classes has shape {(many, many)}, got {counts.shape}")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    width = int(min(1200, max(800, 420 + 55 * many)))
    with figure_at(path, width, width - 100, square=True) as figure:
        axes = figure.subplots()
        axes.grid(visible=False)
        axes.set_facecolor(NO_IMAGES)
        # The root makes a few per cent of confusion visible beside the diagonal.
        image = axes.imshow(100 * shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=100), interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 1, 5, 10, 25, 50, 75, 100])
        bar.set_label("share of the images of the true class (%)")
        named = many <= NAMES_UP_TO
        axes.set(xlabel="decided class" + " (index)" * (not named), ylabel="true class" + " (index)" * (not named))
        hits, images = int(np.trace(counts)), int(counts.sum())
        right = f", {hits:,} right ({100 * hits / images:.1f} %)" if images else ""
        axes.set_title(f"Confusion matrix: {images:,} images{right}")
        if named:
            _name_classes(axes, classes)
        if many <= COUNTS_UP_TO:
            _write_counts(axes, counts, shares)


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    names = [short_name(name, index) for index, name in enumerate(classes)]
    size = 11.0 if len(names) <= COUNTS_UP_TO else 7.5
    axes.set_yticks(range(len(names)), names, fontsize=size)
    upright = len(names) <= 12 and max(map(len, names)) <= 6
    if upright:
        axes.set_xticks(range(len(names)), names, fontsize=size)
    else:
        axes.set_xticks(range(len(names)), names, fontsize=size, rotation=45, ha="right", rotation_mode="anchor")


def _write_counts(axes: Axes, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> None:
    size = 11.0 if len(counts) <= 12 else 9.0
    for row, column in zip(*counts.nonzero(), strict=True):
        colour = "white" if shares[row, column] > 0.3 else INK
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=size)


def draw_regression(truth: Sequence[float], predicted: Sequence[float], name: str, path: Path) -> None:
    """Draw predictions against the truth, with the diagonal that they should lie on.

    Args:
        truth: `[N]`; images whose truth is NaN are left out.
        predicted: `[N]`, in the same unit.
        name: of the value, with its unit if it has one.
        path: of the PNG file, 900 x 900 pixels.

    Raises:
        ValueError: there are not as many predictions as truths.
    """
    import numpy as np

    x, y = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"one prediction for each truth is needed, got {x.shape} and {y.shape}")
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    name = in_letters(name)
    with figure_at(path, 900, 900, square=True) as figure:
        axes = figure.subplots()
        ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())]) if len(x) else np.array([0.0, 1.0])
        margin = 0.04 * (ends[1] - ends[0]) or 1.0
        ends += [-margin, margin]
        many = len(x) > 1000
        axes.scatter(x, y, s=12 if many else 28, color=BLUE, alpha=0.25 if many else 0.6, linewidths=0, label="images")
        axes.plot(ends, ends, color=INK, linewidth=1.2, linestyle="--", label="predicted = true")
        axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"true {name}", ylabel=f"predicted {name}")
        axes.set_title(f"{name}: {_regression_figures(x, y)}")
        for handle in axes.legend(loc="upper left").legend_handles:
            handle.set_alpha(1.0)  # type: ignore[union-attr]


def _regression_figures(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> str:
    import numpy as np

    if not len(x):
        return "no images"
    error = y - x
    power = float(np.square(x - x.mean()).sum())
    r2 = f", R² {1 - float(np.square(error).sum()) / power:.3f}" if power else ""
    rmse = math.sqrt(float(np.square(error).mean()))
    return f"{len(x):,} images, mean absolute error {np.abs(error).mean():.4g}, RMSE {rmse:.4g}{r2}"


def draw_lr_find(lrs: Sequence[float], losses: Sequence[float], suggestion: float | None, path: Path) -> None:
    """Draw the loss at rising learning rates, and the rate that is suggested.

    Args:
        lrs: learning rates above 0.
        losses: one for each; those that are not finite are left out, and the blow-up is cut off above.
        suggestion: the rate to mark; None: none was found.
        path: of the PNG file, 1000 x 600 pixels.

    Raises:
        ValueError: there are not as many losses as rates, or none is finite.
    """
    points = [(lr, loss) for lr, loss in zip(lrs, losses, strict=True) if math.isfinite(loss)]
    if not points:
        raise ValueError("no loss is finite: there is nothing to draw")
    found = [loss for _, loss in points]
    low, first = min(found), found[0]
    with figure_at(path, 1000, 600) as figure:
        axes = figure.subplots()
        axes.plot(*zip(*points, strict=True), color=BLUE)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        # The way down is what matters; the blow-up would flatten it.
        span = max(first - low, 0.1 * abs(low), 1e-6)
        axes.set_ylim(low - 0.1 * span, min(max(found), first + 0.6 * span) + 0.05 * span)
        axes.set(xlabel="learning rate (logarithmic)", ylabel="train loss")
        axes.set_title("Loss at rising learning rates" + ("" if suggestion else ": no suggestion"))
        if suggestion:
            axes.axvline(suggestion, color=VERMILLION, linestyle="--", label=f"suggested: train.lr = {suggestion:.2g}")
            axes.legend(loc="lower left")
