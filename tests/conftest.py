"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="Write golden files anew instead of comparing with them.")


@pytest.fixture(scope="session")
def update_goldens(pytestconfig: pytest.Config) -> bool:
    """Whether golden files are to be written anew."""
    return bool(pytestconfig.getoption("--update-goldens"))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout: its documents, profiles and tools."""
    return Path(__file__).parent.parent
