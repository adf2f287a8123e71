"""The JSON Schemas for editors are those of the models."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgetune.profile import profiles_folder


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_schemas", repository / "tools" / "write_schemas.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["recipe", "profile"])
def test_the_files_are_current(tool: ModuleType, repository: Path, name: str) -> None:
    stored = json.loads((repository / "tools" / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8"))
    assert stored == tool.schema(name), "run python tools/write_schemas.py"


def test_every_key_is_explained_where_an_editor_looks(tool: ModuleType) -> None:
    recipe = tool.schema("recipe")
    tables = [recipe, *recipe["$defs"].values()]
    silent = [key for table in tables for key, value in table["properties"].items() if not _explained(value, recipe)]
    assert silent == []
    assert all(table["additionalProperties"] is False for table in tables)


def _explained(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    reference = value.get("$ref", "").rpartition("/")[2]
    return bool(value.get("description") or schema["$defs"].get(reference, {}).get("description"))


def test_the_schema_knows_the_keys_of_the_shipped_profiles(tool: ModuleType) -> None:
    schema = tool.schema("profile")
    for path in profiles_folder().glob("*.toml"):
        if path.stem == "host":
            continue
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        assert set(content) <= set(schema["properties"])
        assert set(schema["required"]) <= set(content)
