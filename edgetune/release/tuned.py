"""Other session options in a finished bundle, so that everything that it says of itself stays true."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.device.digest import MANIFEST, SIGNATURE
from edgetune.device.session import options_faults
from edgetune.errors import Fault, UsageError
from edgetune.files import file_table, write_atomic, write_json
from edgetune.release.load import load_bundle
from edgetune.release.swap import replacing_folder

__all__ = ["refuse_to_write", "write_session"]

HEADING = "## Session options"


def refuse_to_write(folder: Path, output: Path | None) -> None:
    """Raise where a bundle's session options may not be changed.

    Args:
        folder: the bundle.
        output: the folder for a copy; None to change it in place.

    Raises:
        UsageError: it is signed, or has a counter; it belongs to a run; or something else is in the way of the copy.
    """
    if (folder / SIGNATURE).exists() or "counter" in load_bundle(folder):
        raise UsageError(
            f"{folder} is a release already: its manifest was signed, or has a counter",
            remedy="tune the bundle that it was signed from, then sign that with a higher counter",
        )
    if output is None and (folder.absolute().parent / "recipe.toml").is_file():
        raise UsageError(
            f"{folder} belongs to a run, which makes it anew when it is not what it built", remedy="write a copy: --output DIR"
        )
    if output is None or not output.exists() or (output / MANIFEST).is_file():
        return
    if not output.is_dir() or any(output.iterdir()):
        raise UsageError(f"{output} is in the way: it is not a bundle", remedy="choose another --output")


def write_session(folder: Path, session: Mapping[str, Any], record: Mapping[str, Any], output: Path | None = None) -> Path:
    """Write session options into a bundle, and where they come from into its manifest, model card and report.

    The report's figures stay those of the build: it gets a warning that says with which options they were measured. The runner
    is this version's where the options need one that knows them.

    Args:
        folder: the bundle.
        session: the new options.
        record: becomes `tuning` in the manifest, with the options `before` and those with which the bundle was `built`:
            `measured_on`, `change_percent`, `high_percent`, `pairs`, and what else is to be known; no path has a place there.
        output: a folder for a changed copy; None changes the bundle itself.

    Returns:
        The bundle that has them.

    Raises:
        UsageError: as `refuse_to_write`, or the options cannot be.
        ArtefactError: the bundle is not what was built.
        OSError: the folder cannot be written; what stood there before still does.
    """
    refuse_to_write(folder, output)
    if faults := options_faults(session):
        raise UsageError("these are no session options", faults=[Fault(where="", problem=text) for text in faults])
    manifest = load_bundle(folder)
    built = manifest.get("tuning", {}).get("built", manifest["session"])
    manifest = {**manifest, "session": dict(session), "tuning": {**record, "before": manifest["session"], "built": built}}
    target = output or folder
    with replacing_folder(target) as new:
        shutil.copytree(folder, new, dirs_exist_ok=True)
        words = _in_words(manifest)
        card = (new / "README.md").read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0].rstrip("\n")
        write_atomic(new / "README.md", f"{card}\n\n{HEADING}\n\n{words}\n".encode())
        _warn(new / "report.json", words)
        if "memory_arena" in session:
            from edgetune.device.archive import write_runner

            write_runner(new / "runner.pyz")
        write_json(new / MANIFEST, {**manifest, "files": file_table(new, exclude=(MANIFEST,))})
        load_bundle(new)
    return target


def _in_words(manifest: Mapping[str, Any]) -> str:
    record = manifest["tuning"]
    now, before, built = (json.dumps(one, sort_keys=True) for one in (manifest["session"], record["before"], record["built"]))
    lowered = "; ".join(record.get("lowered", ()))
    change = f": {lowered}"
    if record["change_percent"] is not None:
        change = (
            f" changes the latency by {record['change_percent']:+.1f} % (at most {record['high_percent']:+.1f} %, "
            f"{record['pairs']} pairs of processes){f', against {lowered}' if lowered else ''}"
        )
    return (
        f"Tuned after the build on {record['measured_on']}: `{now}` instead of `{before}`{change}. "
        f"The latency and memory figures of the build were measured with `{built}`; `edgetune check` measures with the present "
        "options."
    )


def _warn(path: Path, words: str) -> None:
    """Say in a report with which options its figures were measured; once, however often the bundle is tuned."""
    report = json.loads(path.read_text(encoding="utf-8"))
    earlier = [text for text in report.get("warnings", ()) if not text.startswith("Tuned after the build on ")]
    write_json(path, {**report, "warnings": [*earlier, words]})
