"""Strict TOML: reading, `--set`, and every fault of a file at once."""

from __future__ import annotations

import math
import string
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from edgetune.errors import RecipeError, UsageError
from edgetune.schema import SchemaVersion, Strict, apply_settings, put, read_toml, to_toml, validate

KEYS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), FLOATS, st.text(max_size=20), st.lists(st.integers(-9, 9)))
TABLES = st.recursive(st.dictionaries(KEYS, VALUES, max_size=4), lambda t: st.dictionaries(KEYS, VALUES | t, max_size=4))


class Inner(Strict):
    size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    mode: Literal["crop", "pad"] = "crop"
    names: tuple[str, ...] = ()


class Outer(Strict):
    schema_: SchemaVersion = Field(default=1, alias="schema")
    rate: float | None = Field(default=None, gt=0.0)
    flag: bool = False
    items: tuple[Inner, ...] = ()
    inner: Inner = Inner()


def faults(content: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        validate(Outer, content, "file.toml", RecipeError)
    return {fault.where: str(fault).partition(": ")[2] for fault in caught.value.faults}


@given(TABLES)
def test_toml_reads_back_as_what_was_written(content: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(content)) == content


def test_none_is_left_out_and_tables_follow_values() -> None:
    assert to_toml({"a": {"b": 1}, "c": None, "d": True}) == "d = true\n\n[a]\nb = 1\n"


@given(st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=5), min_size=1, max_size=4), VALUES)
def test_a_setting_is_read_as_toml(names: list[str], value: Any) -> None:
    key = ".".join(names)
    text = to_toml({"value": value}).partition(" = ")[2]
    content: Any = apply_settings({}, [f"{key}={text}"])
    for name in names:
        content = content[name]
    assert content == value


def test_a_bare_word_is_a_string_and_later_settings_win() -> None:
    content = {"train": {"epochs": 5}, "seed": 1}
    assert apply_settings(content, ["train.epochs=3", " train . lr = 0.1 ", "target=host", "train.epochs=4"]) == {
        "train": {"epochs": 4, "lr": 0.1},
        "seed": 1,
        "target": "host",
    }
    assert content == {"train": {"epochs": 5}, "seed": 1}, "the original must stay as it was"


@pytest.mark.parametrize("setting", ["train.epochs", "=3", "train.=3", ".epochs=3", ""])
def test_what_is_not_a_setting_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=r"is not a setting\n.*--set train\.epochs=3"):
        apply_settings({}, [setting])


def test_a_setting_below_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--set 'seed\.x=3': 'seed' is a value, not a table"):
        apply_settings({"seed": 1}, ["seed.x=3"])
    with pytest.raises(UsageError, match=r"the option for a\.b: 'a' is a value"):
        put({"a": 3}, "a.b", 1, "the option for a.b")


def test_dates_do_not_turn_into_strings() -> None:
    assert apply_settings(tomllib.loads("a = 2026-01-02"), ["b=2026-01-03"])["b"].year == 2026


def test_every_fault_comes_at_once_with_place_got_and_expected() -> None:
    found = faults(
        {
            "rate": math.nan,
            "flag": 1,
            "flagg": True,
            "items": ({"size": 0}, {"mode": "crp", "mod": 1}),
            "inner": {"size": 1.5, "names": (1,), "size_": 3},
        }
    )
    assert found == {
        "rate": "wrong value; got nan; expected a finite number",
        "flag": "wrong value; got 1; expected true or false",
        "flagg": "unknown key; expected one of flag, inner, items, rate, schema (did you mean 'flag'?)",
        "items.0.size": "wrong value; got 0; expected greater than or equal to 1 or 'auto'",
        "items.1.mode": "wrong value; got 'crp'; expected 'crop' or 'pad' (did you mean 'crop'?)",
        "items.1.mod": "unknown key; expected one of mode, names, size (did you mean 'mode'?)",
        "inner.size": "wrong value; got 1.5; expected a whole number or 'auto'",
        "inner.names.0": "wrong value; got 1; expected text in quotes",
        "inner.size_": "unknown key; expected one of mode, names, size (did you mean 'size'?)",
    }


def test_a_key_of_another_table_is_found_there() -> None:
    assert faults({"mode": "pad"}) == {
        "mode": "unknown key; expected one of flag, inner, items, rate, schema (did you mean 'inner.mode'?)"
    }


def test_a_table_that_is_none() -> None:
    assert faults({"inner": 3}) == {"inner": "wrong value; got 3; expected a table"}


@pytest.mark.parametrize("schema", [True, 1.0, "1", 0, -1])
def test_another_schema_is_a_fault_among_the_others(schema: Any) -> None:
    found = faults({"schema": schema, "flag": 3})
    assert set(found) == {"schema", "flag"}


def test_a_newer_schema_is_refused_before_anything_else() -> None:
    with pytest.raises(RecipeError, match=r"file\.toml has schema 2; this edgetune knows schema 1\n.*newer edgetune"):
        validate(Outer, {"schema": 2, "flag": 3}, "file.toml", RecipeError)


def test_long_values_are_shortened() -> None:
    assert len(faults({"flag": "x" * 1000})["flag"]) < 120


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a = \xff", "is not UTF-8 text (byte 4)"),
        (b"a = ", "is not valid TOML"),
        (b"a = 1\na = 2", "is not valid TOML"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_files_that_are_no_toml(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_toml(path, RecipeError)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
