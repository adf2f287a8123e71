"""Write the JSON Schemas of recipes and profiles, for editors that complete and check TOML.

Run `python tools/write_schemas.py` after changing edgetune/recipe or edgetune/profile; a test compares the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from edgetune.profile import Profile
from edgetune.recipe import Recipe

FOLDER = Path(__file__).parent / "schemas"
MODELS: dict[str, type[BaseModel]] = {"recipe": Recipe, "profile": Profile}


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one kind of file."""
    content = MODELS[name].model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content, "title": f"edgetune {name}"}


def main() -> None:
    """Write all schemas."""
    FOLDER.mkdir(exist_ok=True)
    for name in MODELS:
        path = FOLDER / f"{name}.schema.json"
        path.write_text(json.dumps(schema(name), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
