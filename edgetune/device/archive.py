"""Packing this package as `runner.pyz`, one file that any Python 3.8 or newer runs."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from .atomic import write_atomic

PACKAGE = "edgetune_device"
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest date that a zip file can hold."""
MAIN = f'''"""The runner of an edgetune bundle: python3 runner.pyz --help."""

import sys

if sys.version_info < (3, 8):
    sys.exit("runner.pyz needs Python 3.8 or newer, this is %d.%d" % sys.version_info[:2])

from {PACKAGE}.runner import main

sys.exit(main())
'''


def write_runner(path: Path | str) -> None:
    """Write this package as a zipapp; the same sources always give the same bytes.

    Args:
        path: the file to write, atomically; its folder must exist.

    Raises:
        OSError: the file cannot be written, or the package's sources cannot be read.
    """
    write_atomic(Path(path), runner_bytes(), mode=0o755)


def runner_bytes() -> bytes:
    """Return the content of `runner.pyz`.

    Raises:
        OSError: the package's sources cannot be read.
    """
    here = Path(__file__).parent
    sources = {f"{PACKAGE}/{source.relative_to(here).as_posix()}": source.read_bytes() for source in here.rglob("*.py")}
    stream = io.BytesIO()
    stream.write(SHEBANG)
    # Stored, not deflated: what a compressor makes of the same bytes depends on its version.
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for name, content in sorted({**sources, "__main__.py": MAIN.encode("utf-8")}.items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return stream.getvalue()
