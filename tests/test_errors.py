"""The tree of errors: its drawing, its exit codes, and how an error reads."""

from __future__ import annotations

import inspect
import re

import pytest

from edgetune import errors
from edgetune.errors import DataError, EdgetuneError, ExitCode, Fault, RecipeError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, EdgetuneError)]


@pytest.mark.parametrize("error", CLASSES, ids=lambda c: c.__name__)
def test_the_docstring_draws_every_class_with_its_exit_code(error: type[EdgetuneError]) -> None:
    drawn = dict(re.findall(r"(\w+) {2,}(\d+) ", errors.__doc__ or ""))
    assert drawn[error.__name__] == str(int(error.exit_code))


@pytest.mark.parametrize("error", [c for c in CLASSES if c is not EdgetuneError], ids=lambda c: c.__name__)
def test_the_docstring_draws_every_class_below_its_base(error: type[EdgetuneError]) -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if re.search(r"\b[A-Z]\w+ {2,}\d", line)]
    depth = {re.search(r"[A-Z]\w+", line).group(): line.index("─") if "─" in line else -1 for line in lines}
    order = list(depth)
    above = [name for name in order[: order.index(error.__name__)] if depth[name] < depth[error.__name__]]
    assert error.__base__ is not None
    assert above[-1] == error.__base__.__name__


def test_all_classes_are_exported() -> None:
    assert {c.__name__ for c in CLASSES} <= set(errors.__all__)


def test_an_error_shows_every_fault_and_the_remedy() -> None:
    first = Fault(where="train.lr", problem="wrong value", got="nan", expected="a finite number")
    second = Fault(where="", problem="the splits leave nothing to train on", hint="lower data.val_fraction")
    error = RecipeError("recipe.toml has 2 faults", faults=[first, second], remedy="mend every line above")
    assert str(error).splitlines() == [
        "recipe.toml has 2 faults",
        "  - train.lr: wrong value; got nan; expected a finite number",
        "  - the splits leave nothing to train on (lower data.val_fraction)",
        "  → mend every line above",
    ]
    assert error.exit_code is ExitCode.USAGE


def test_an_error_without_faults_is_its_message() -> None:
    assert str(DataError("photos/ is empty")) == "photos/ is empty"


def test_exit_codes_are_those_that_ci_jobs_were_promised() -> None:
    promised = {"OK": 0, "UNFORESEEN": 1, "USAGE": 2, "TARGET": 3, "ARTEFACT": 4, "DATA": 5}
    assert {code.name: int(code) for code in ExitCode} == {**promised, "BROKEN": 10, "INCONCLUSIVE": 11, "INTERRUPTED": 130}
