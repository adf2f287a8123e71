"""A recipe as a file for people: every key with its value, what it means above it, and what is not given commented out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from edgetune.recipe import Recipe
from edgetune.schema import to_toml, toml_key

__all__ = ["commented_recipe"]

WIDTH = 110


def commented_recipe(recipe: Recipe, title: str = "") -> str:
    """Return a recipe as commented TOML; read back, it is the same recipe.

    Args:
        recipe: the recipe.
        title: lines for the top of the file.
    """
    lines = [*_comment(title), *(("",) if title else ()), *_table(recipe, ())]
    return "\n".join(lines) + "\n"


def _table(table: BaseModel, path: tuple[str, ...]) -> Iterator[str]:
    inner: list[tuple[str, BaseModel]] = []
    tables: list[tuple[str, str, dict[str, BaseModel]]] = []
    for name, field in type(table).model_fields.items():
        key, value = field.alias or name, getattr(table, name)
        if isinstance(value, BaseModel):
            inner.append((key, value))
            continue
        if isinstance(value, dict):
            # Tables have to stand after all values.
            tables.append((key, field.description or "", value))
            continue
        yield from _comment(_unwrapped(field.description))
        yield f"# {key} = (not given)" if value is None else to_toml({key: value}).rstrip("\n")
    for key, value in inner:
        yield ""
        yield ""
        yield from _comment((type(value).__doc__ or "").partition("\n")[0])
        yield f"[{'.'.join((*path, key))}]"
        yield from _table(value, (*path, key))
    for key, description, values in tables:
        yield ""
        yield ""
        yield from _comment(_unwrapped(description))
        for name, value in values.items():
            yield f"[{'.'.join((*path, key, toml_key(name)))}]"
            yield from _table(value, (*path, key, name))


def _unwrapped(description: str | None) -> str:
    """Return a key's description as one line: where its lines end in our source says nothing."""
    return " ".join((description or "").split())


def _comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from textwrap.wrap(line, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False) or ["#"]
