"""What the tests of folders share: what is found in one, and why it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from edgetune.artefacts import Dataset
from edgetune.data import inspect
from edgetune.data.hygiene import Hygiene
from edgetune.errors import DataError
from edgetune.progress import Silent
from edgetune.recipe import DataRecipe

Fill = Callable[..., None]
Prepared = Callable[..., Dataset]
Picture = Callable[..., Image.Image]


def look(source: Path, **keys: object) -> Hygiene:
    return inspect(DataRecipe(**{"source": str(source), "image_size": 32, **keys}), Silent())


def refused(prepared: Prepared, source: Path, **keys: object) -> DataError:
    with pytest.raises(DataError) as caught:
        prepared(source, **keys)
    assert caught.value.exit_code == 5
    return caught.value


def named(error: DataError) -> dict[str, str]:
    return {fault.where: fault.problem for fault in error.faults}
