"""Strict TOML files: read, `--set`, and every fault of a file at once, with the nearest known key."""

from __future__ import annotations

import copy
import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from edgetune.errors import Fault, UsageError

__all__ = ["SCHEMA_VERSION", "SchemaVersion", "Strict", "apply_settings", "put", "read_toml", "to_toml", "toml_key", "validate"]

SCHEMA_VERSION = 1

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[Any, ...]
NICER = {
    "bool_type": "should be true or false",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "model_type": "should be a table",
    "string_type": "should be text in quotes",
    "tuple_type": "should be a list",
    "dict_type": "should be a table",
}
"""Pydantic's messages that speak of Python, in TOML's words."""


def _whole_number(value: object) -> object:
    """Refuse True and 1.0, which Python, and therefore `Literal[1]`, takes for 1."""
    if type(value) is not int:
        raise ValueError(f"the schema should be the whole number {SCHEMA_VERSION}")
    return value


SchemaVersion = Annotated[Literal[1], BeforeValidator(_whole_number)]


class Strict(BaseModel):
    """A frozen table of a TOML file: unknown keys, wrong types, NaN and infinities are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


def read_toml(path: Path, error: type[UsageError]) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        UsageError: of class `error`, when the file cannot be read, is not UTF-8, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise error(f"{path} cannot be read: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{path} is not UTF-8 text (byte {fault.start})", remedy="save the file as UTF-8") from fault
    except tomllib.TOMLDecodeError as fault:
        raise error(f"{path} is not valid TOML: {fault}") from fault


def apply_settings(content: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return `content` with each `a.b=value` of `settings` applied; values are TOML, and a bare word is a string.

    Raises:
        UsageError: a setting has no `=`, no key, or names a value as if it were a table.
    """
    merged = copy.deepcopy(dict(content))
    for setting in settings:
        key, separator, text = setting.partition("=")
        names = [name.strip() for name in key.split(".")]
        if not separator or not all(names):
            raise UsageError(
                f"--set {setting!r} is not a setting", remedy="write --set table.key=value, as in --set train.epochs=3"
            )
        put(merged, ".".join(names), _toml_value(text.strip()), f"--set {setting!r}")
    return merged


def put(content: dict[str, Any], key: str, value: object, source: str) -> None:
    """Set the dotted `key` of nested tables, in place.

    Raises:
        UsageError: a name on the way is a value, not a table; `source` says who asked.
    """
    *tables, last = key.split(".")
    table: Any = content
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise UsageError(f"{source}: {name!r} is a value, not a table")
    table[last] = value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def validate(model: type[Model], content: Mapping[str, Any], source: str, error: type[UsageError]) -> Model:
    """Return `content` as a `model`.

    Args:
        model: the pydantic model of the whole file; it has a key `schema`.
        content: the TOML content.
        source: the file's name, for the message.
        error: the class of error to raise.

    Raises:
        UsageError: of class `error`, with every fault of the file.
    """
    found = content.get("schema", SCHEMA_VERSION)
    if type(found) is int and found > SCHEMA_VERSION:
        raise error(
            f"{source} has schema {found}; this edgetune knows schema {SCHEMA_VERSION}",
            remedy="install a newer edgetune, or write the file for this schema",
        )
    try:
        return model.model_validate(_tuples(content))
    except ValidationError as failure:
        faults = list(_faults(model, failure.errors(include_url=False)))
        noun = "fault" if len(faults) == 1 else "faults"
        raise error(f"{source} has {len(faults)} {noun}", faults=faults, remedy="mend every line above") from failure


def _tuples(value: Any) -> Any:
    """Return TOML's lists as tuples, which is what a frozen strict model holds."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list | tuple) else value


def _faults(model: type[BaseModel], details: Sequence[Any]) -> Iterator[Fault]:
    """Yield one fault per key: pydantic reports each alternative of `int | Literal["auto"]` on its own."""
    grouped: dict[Place, list[Any]] = {}
    for detail in details:
        grouped.setdefault(_place(model, detail["loc"]), []).append(detail)
    for place, alternatives in grouped.items():
        where = ".".join(str(part) for part in place)
        if alternatives[0]["type"] == "extra_forbidden":
            known = _known_keys(model, place[:-1])
            expected = f"one of {', '.join(known)}"
            yield Fault(where=where, problem="unknown key", expected=expected, hint=_near_key(model, str(place[-1]), known))
        elif alternatives[0]["type"] == "missing":
            yield Fault(where=where, problem="is missing", expected="a value")
        else:
            yield _wrong_value(where, alternatives)


def _wrong_value(where: str, alternatives: Sequence[Any]) -> Fault:
    value = alternatives[0]["input"]
    messages = [NICER.get(detail["type"], detail["msg"].removeprefix("Value error, ")) for detail in alternatives]
    if not where:  # A rule that joins several keys names them itself.
        return Fault(where="", problem="; ".join(messages))
    expected = [message.partition("should ")[2].removeprefix("be ") or message for message in messages]
    choices = [choice for detail in alternatives for choice in detail.get("ctx", {}).get("expected", "").split("'")[1::2]]
    near = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
    hint = f"did you mean {near[0]!r}?" if near else ""
    return Fault(where=where, problem="wrong value", got=_shown(value), expected=" or ".join(expected), hint=hint)


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _place(model: type[BaseModel], location: Place) -> Place:
    """Return where the file is wrong: pydantic's location without the name of the alternative that did not match."""
    for length in range(1, len(location)):
        field = _table_at(model, location[: length - 1])
        if field is not None and _is_choice(field, location[length - 1]):
            return location[:length]
    return location


def _is_choice(table: type[BaseModel], key: Any) -> bool:
    """Return whether a key may hold values of several kinds: a union other than `X | None`."""
    annotation = next((f.annotation for name, f in table.model_fields.items() if key in (name, f.alias)), None)
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    return get_origin(annotation) in (Union, UnionType) and len(kinds) > 1


def _table_at(model: type[BaseModel], location: Place) -> type[BaseModel] | None:
    """Return the model of the table at `location`; None if that is not a table."""
    current: Any = model
    named = False
    for part in location:
        if (
            isinstance(part, int) or named
        ):  # An item of an array, or a table with a name of its own: its model was found before.
            named = False
            continue
        field = next((f for name, f in current.model_fields.items() if part in (name, f.alias)), None)
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        named = field is not None and get_origin(field.annotation) is cast(Any, dict)
        current = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if current is None:
            return None
    table: type[BaseModel] = current
    return table


def _known_keys(model: type[BaseModel], location: Place) -> list[str]:
    table = _table_at(model, location)
    return sorted(field.alias or name for name, field in table.model_fields.items()) if table else []


def _near_key(model: type[BaseModel], word: str, known: Sequence[str]) -> str:
    """Return a hint: the nearest key of the same table, else the table that this key belongs to."""
    longer = [key for key in known if key.startswith(word) or word.startswith(key)]
    if near := longer[:1] or difflib.get_close_matches(word, known, n=1):
        return f"did you mean {near[0]!r}?"
    elsewhere = [path for path in _paths(model) if path.rpartition(".")[2] == word]
    return f"did you mean {elsewhere[0]!r}?" if elsewhere else ""


def _paths(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a model and of the tables in it."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{key}.")


def to_toml(content: Mapping[str, Any]) -> str:
    """Return JSON-like content as TOML text: tables after values, keys in the order given, None left out."""
    return "\n".join(_toml_lines(content, ())) + "\n"


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping) and value is not None}
    lines = [f"{toml_key(key)} = {_toml_text(value)}" for key, value in values.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner = _toml_lines(value, (*path, key))
            header = ".".join(toml_key(part) for part in (*path, key))
            lines += ["", f"[{header}]", *inner]
    return lines


def toml_key(key: str) -> str:
    """Return a key as it is written: in quotes, if it is not made of letters, digits, - and _ alone."""
    bare = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    return key if bare else _toml_text(key)


def _toml_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the delete character, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_text(inner) for inner in value) + "]"
    return repr(value)
