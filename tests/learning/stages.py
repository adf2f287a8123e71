"""What a run folder holds."""

from __future__ import annotations

from edgetune.pipeline import Run


def stages(run: Run, name: str) -> set[str]:
    return {path.name for path in (run.folder / "stages" / name).glob("*")}
