"""Verdicts class by class, and that many classes do not raise more alarms than one."""

from __future__ import annotations

import numpy as np

from edgetune.verify.classes import per_class

NINE = [f"class {number}" for number in range(9)]


def judge(baseline, candidate, labels, classes=NINE, tolerance=10.0):
    return per_class(np.asarray(baseline), np.asarray(candidate), np.asarray(labels), classes, tolerance, "each class")


def test_one_class_that_lost_too_much_is_named():
    labels = np.repeat(np.arange(9), 60)
    right = np.ones(540, bool)
    spoiled = right.copy()
    spoiled[60 * 4 : 60 * 4 + 20] = False
    row = judge(right, spoiled, labels)
    assert (row.verdict, row.data["broken"]) == ("BROKEN", ["class 4"])
    assert row.reason == "beyond what chance explains among 9 classes: class 4 (33.3 points)"
    assert row.figure.startswith("worst class class 4: +33.33 points lost [")
    assert row.data["samples"] == "60 images a class"


def test_the_same_decisions_are_kept_and_few_images_confirm_nothing():
    labels = np.repeat(np.arange(9), 60)
    right = np.ones(540, bool)
    assert judge(right, right, labels).verdict == "KEPT"
    few = judge(right[:560:2], right[:560:2], labels[::2], tolerance=5.0)
    assert few.verdict == "INCONCLUSIVE"
    assert few.reason == "9 of 9 classes have fewer than the 59 images that could confirm it: class 0, class 1, class 2 …"


def test_classes_without_images_are_left_out():
    labels = np.zeros(100, np.int64)
    row = judge(np.ones(100, bool), np.ones(100, bool), labels)
    assert (row.verdict, list(row.data["classes"])) == ("KEPT", ["class 0"])


def test_nine_classes_on_the_border_raise_no_more_false_alarms_than_one():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(9), 100)
    alarms = naive = 0
    for _ in range(300):
        # Every class loses exactly what is allowed: 13 % lost, 3 % gained.
        draw = rng.random(900)
        baseline, candidate = draw >= 0.03, (draw < 0.03) | (draw >= 0.16)
        row = judge(baseline, candidate, labels)
        alarms += row.verdict == "BROKEN"
        naive += min(one["chance"] for one in row.data["classes"].values()) < 0.05
    # 300 comparisons at 5 %: above 24 only once in a hundred. Without a correction more than a quarter would be wrong.
    assert alarms <= 24
    assert naive > 75
