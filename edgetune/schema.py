"""Strict TOML files: read, `--set`, and every fault of a file at once, with the nearest known key."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from edgetune.errors import Fault, UsageError

__all__ = ["SCHEMA_VERSION", "Strict", "apply_settings", "read_toml", "to_toml", "validate"]

SCHEMA_VERSION = 1

Model = TypeVar("Model", bound=BaseModel)


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
    merged: dict[str, Any] = json.loads(json.dumps(content, default=str))
    for setting in settings:
        key, separator, text = setting.partition("=")
        names = [name.strip() for name in key.split(".")]
        if not separator or not all(names):
            raise UsageError(
                f"--set {setting!r} is not a setting", remedy="write --set table.key=value, as in --set train.epochs=3"
            )
        table = merged
        for name in names[:-1]:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise UsageError(f"--set {setting!r}: {name!r} is a value, not a table")
        table[names[-1]] = _toml_value(text.strip())
    return merged


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
    if isinstance(found, int) and found > SCHEMA_VERSION:
        raise error(
            f"{source} has schema {found}; this edgetune knows schema {SCHEMA_VERSION}",
            remedy="install a newer edgetune, or write the file for this schema",
        )
    try:
        return model.model_validate(_tuples(content))
    except ValidationError as failure:
        faults = [_fault(model, detail) for detail in failure.errors(include_url=False)]
        noun = "fault" if len(faults) == 1 else "faults"
        raise error(f"{source} has {len(faults)} {noun}", faults=faults, remedy="mend every line above") from failure


def _tuples(value: Any) -> Any:
    """Return TOML's lists as tuples, which is what a frozen strict model holds."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list | tuple) else value


def _fault(model: type[BaseModel], detail: Any) -> Fault:
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(model, detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else ""
        return Fault(where=where, problem="unknown key", expected=f"one of {', '.join(known)}", hint=hint)
    if detail["type"] == "missing":
        return Fault(where=where, problem="is missing", expected="a value")
    problem = detail["msg"][:1].lower() + detail["msg"][1:]
    hint = ""
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        choices = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(detail["input"], choices, n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
    return Fault(where=where, problem=problem, got=_shown(detail["input"]), hint=hint)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_keys(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Return the keys of the table at `location`."""
    current: Any = model
    for part in location:
        field = current.model_fields.get(part) if isinstance(current, type) else None
        if field is None:
            return []
        candidates = [field.annotation, *get_args(field.annotation)]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    if current is None:
        return []
    return sorted(field.alias or name for name, field in current.model_fields.items())


def to_toml(content: Mapping[str, Any]) -> str:
    """Return JSON-like content as TOML text: tables after values, keys in the order given, None left out."""
    return "\n".join(_toml_lines(content, ())) + "\n"


def _toml_lines(table: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    values = {key: value for key, value in table.items() if not isinstance(value, Mapping) and value is not None}
    lines = [f"{_toml_key(key)} = {_toml_text(value)}" for key, value in values.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner = _toml_lines(value, (*path, key))
            header = ".".join(_toml_key(part) for part in (*path, key))
            lines += ["", f"[{header}]", *inner]
    return lines


def _toml_key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    return key if bare else json.dumps(key, ensure_ascii=False)


def _toml_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the delete character, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_text(inner) for inner in value) + "]"
    return repr(value)
