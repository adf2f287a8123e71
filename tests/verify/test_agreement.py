from __future__ import annotations

import numpy as np
import pytest

from edgetune.device.heads import Head
from edgetune.report.agreement import matrix_lines
from edgetune.verify.agreement import agreements, margins

HEADS = (Head("label", "single-label", ("a", "b", "c")),)


def table(*rows):
    return np.array(rows, np.float32)


def test_every_pair_is_compared_once():
    first = table([3, 1, 0], [0, 2, 1.5])
    second = table([3, 1, 0.25], [0, 1.5, 2])
    found = agreements({"x": first, "y": first.copy(), "z": second}, HEADS)
    assert [pair["devices"] for pair in found] == [["x", "y"], ["x", "z"], ["y", "z"]]
    same, other, _ = found
    assert same["bit_equal"]
    assert same["agreement_percent"] == 100.0
    assert same["changed_margin"] is None
    assert not other["bit_equal"]
    assert other["changed"] == 1
    assert other["agreement_percent"] == 50.0
    assert other["largest_difference"] == 0.5
    assert other["changed_margin"] == 0.5


def test_zeros_of_other_signs_are_not_the_same_bits():
    assert not agreements({"x": table([0.0, 1, 2]), "y": table([-0.0, 1, 2])}, HEADS)[0]["bit_equal"]


def test_a_margin_is_that_of_the_head_that_is_least_sure():
    heads = (*HEADS, Head("value", "regression", ("v",)), Head("more", "single-label", ("d", "e")))
    found = margins(table([5, 1, 0, 99, 2, 1.5]), heads)
    assert found is not None
    assert found.tolist() == [0.5]
    assert margins(table([1.0]), (Head("value", "regression", ("v",)),)) is None


def test_the_matrix_names_every_pair():
    pairs = agreements({"x": table([3, 1, 0]), "y": table([3, 1, 0]), "z": table([0, 1, 0])}, HEADS)
    lines = matrix_lines(pairs)
    assert "on 1 images" in lines[0]
    assert lines[1].split() == ["y", "z"]
    assert lines[2].split() == ["x", "bit-equal", "0.00", "%,", "3"]
    assert lines[3].split() == ["y", "0.00", "%,", "3"]
    assert lines[4] == "x and z decide 1 otherwise, where the best class leads by at most 2"
    assert matrix_lines([]) == []


@pytest.mark.parametrize("shift", [1e-3, 0.2])
def test_no_decision_changes_where_the_margin_is_more_than_twice_the_difference(shift):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(500, 3)).astype(np.float32)
    second = first + rng.uniform(-shift, shift, first.shape).astype(np.float32)
    (pair,) = agreements({"x": first, "y": second}, HEADS)
    assert pair["changed_margin"] is None or pair["changed_margin"] <= 2 * pair["largest_difference"]
