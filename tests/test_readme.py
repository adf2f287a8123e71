"""What the documents promise: README's commands are those that CI runs, and its help is the real one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgetune.errors import ExitCode


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_first_two_sh_blocks_are_what_ci_runs(repository: Path) -> None:
    build, tests = (block.strip() for block in blocks(repository, "sh")[:2])
    done = subprocess.run([repository / ".ci" / "run", "--dry-run"], capture_output=True, text=True, check=True)
    commands = done.stdout.splitlines()
    assert commands[0] == build == "pip install . && edgetune build"
    assert f"{commands[1]} && {commands[-1]}" == tests
    assert commands[1] == "pip install '.[dev]'"
    assert commands[-1].startswith("pytest")


def test_the_help_is_the_real_one(repository: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "edgetune", "--help"], capture_output=True, text=True, check=True)
    shown = [block for block in blocks(repository, "text") if block.startswith("Usage: edgetune ")]
    assert shown == [done.stdout], "copy the output of `edgetune --help` into README.md"


def test_every_exit_code_is_explained(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    explained = [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert explained == [int(code) for code in ExitCode]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(repository: Path, document: str) -> None:
    text = (repository / document).read_text(encoding="utf-8")
    local = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in local if not (repository / link).exists()] == []


def test_the_rooms_of_contributing_exist(repository: Path) -> None:
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rooms = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    assert rooms
    assert [room for room in rooms if not list(repository.glob(room.rstrip("/")))] == []
