"""Verdicts on calibration."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.verify.calibration import calibration
from edgetune.verify.metrics import calibration_error


@pytest.fixture
def calibrated():
    """Logits whose confidence is the truth, and labels drawn from it."""
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 1.5, (1500, 4)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) > rng.random((1500, 1))).argmax(axis=1)
    return logits, labels


def test_the_same_confidence_is_kept(calibrated):
    logits, labels = calibrated
    row = calibration(logits, logits, labels, 2.0, "ECE")
    assert (row.verdict, row.data["estimate"], row.data["low"], row.data["high"]) == ("KEPT", 0.0, 0.0, 0.0)


def test_overconfidence_is_broken_and_its_repair_is_kept(calibrated):
    logits, labels = calibrated
    row = calibration(logits, 3 * logits, labels, 2.0, "ECE")
    assert row.verdict == "BROKEN"
    expected = 100 * (calibration_error(3 * logits, labels) - calibration_error(logits, labels))
    assert row.data["estimate"] == pytest.approx(expected)
    assert row.data["low"] < expected < row.data["high"]
    assert calibration(3 * logits, logits, labels, 2.0, "ECE").verdict == "KEPT"


def test_few_images_tell_nothing(calibrated):
    logits, labels = calibrated
    assert calibration(logits[:20], 3 * logits[:20], labels[:20], 2.0, "ECE").verdict == "INCONCLUSIVE"
