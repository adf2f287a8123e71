"""The shell of the command line: help without heavy imports, exit codes, and what goes to stdout and to stderr."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click
import pytest

import edgetune
from edgetune.cli import main as shell
from edgetune.cli.main import COMMANDS, cli, main
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.errors import ArtefactError, DataError, Fault, Interrupted

HEAVY = ("pydantic", "torch", "rich", "numpy", "onnx", "onnxruntime", "timm", "sklearn", "scipy", "PIL", "edgetune.recipe")


def run(*arguments: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = ["-c", code] if code else ["-m", "edgetune"]
    return subprocess.run([sys.executable, *program, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type:
    """A command named `data` that raises what it is told."""

    class Failing:
        error: BaseException | None = None

    @click.command()
    def command() -> NoReturn:
        assert Failing.error
        raise Failing.error

    module = type(sys)("failing_command")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "failing_command", module)
    monkeypatch.setitem(COMMANDS, "data", ("failing_command:command", "Fail."))
    return Failing


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["bild"]])
def test_the_shell_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from edgetune.cli.main import main
main({arguments!r})
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    assert run(code=code).stderr.endswith("[]\n")


def test_help_names_every_command_and_goes_to_stdout() -> None:
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name, (_, text) in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert text in done.stdout


def test_help_does_not_depend_on_the_terminal() -> None:
    environment = {**os.environ, "COLUMNS": "40", "TERMINAL_WIDTH": "40"}
    narrow = subprocess.run(
        [sys.executable, "-m", "edgetune", "--help"], capture_output=True, text=True, check=True, env=environment
    )
    assert narrow.stdout == run("--help").stdout


@pytest.mark.parametrize("name", [n for n in COMMANDS if (Path(edgetune.__file__).parent / "cli" / f"{n}.py").exists()])
def test_a_command_is_where_the_table_says_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert main([name, "--help"]) == 0
    output = capsys.readouterr()
    assert f"edgetune {name}" in output.out
    assert output.err == ""


def test_the_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"edgetune, version {edgetune.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bild"], "No such command 'bild'. Did you mean 'build'?"),
        (["xyzzy"], "No such command 'xyzzy'."),
        (["--nosuch"], "No such option"),
        (["profiles", "--jsn"], "No such option"),
        (["init", "a", "b"], "unexpected extra argument"),
    ],
)
def test_usage_errors_exit_2_on_stderr(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert "Traceback" not in output.err


def test_no_command_shows_the_help_and_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.USAGE
    assert "Commands:" in capsys.readouterr().err


def test_a_foreseen_error_is_readable_with_every_fault(failing: type, capsys: pytest.CaptureFixture[str]) -> None:
    faults = [Fault(where="cat/1.jpg", problem="is truncated"), Fault(where="dog/2.jpg", problem="is empty")]
    failing.error = DataError("2 images cannot be used", faults=faults, remedy="repair or remove them")
    assert main(["data"]) == ExitCode.DATA
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "edgetune: 2 images cannot be used",
        "  - cat/1.jpg: is truncated",
        "  - dog/2.jpg: is empty",
        "  → repair or remove them",
    ]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ArtefactError("model.onnx was changed"), 4, "edgetune: model.onnx was changed"),
        (RunnerError("no onnxruntime here", ExitCode.TARGET), 3, "edgetune: no onnxruntime here"),
        (Interrupted("interrupted after epoch 3"), 130, "edgetune: interrupted after epoch 3"),
        (KeyboardInterrupt(), 130, "edgetune: interrupted; run the same command again to resume"),
        (ZeroDivisionError("division by zero"), 1, "edgetune: this is a bug in edgetune"),
    ],
)
def test_exit_codes(failing: type, error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    failing.error = error
    assert main(["data"]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert ("Traceback" in output.err) is (code == 1)


def test_a_command_returns_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", lambda **_: ExitCode.BROKEN)
    assert main(["check"]) == 10
    monkeypatch.setattr(cli, "main", lambda **_: None)
    assert main(["check"]) == 0


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m edgetune profiles --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "[0\n"
    assert done.stderr == ""


def test_the_installed_program_is_this_one() -> None:
    done = subprocess.run([Path(sys.executable).parent / "edgetune", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"edgetune, version {edgetune.__version__}\n"


def test_the_exit_codes_of_the_help_are_those_of_the_tree() -> None:
    for code in ExitCode:
        assert f"{int(code)} " in shell.EPILOG


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    assert main(["train", "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "Permission denied" in said
    assert "Traceback" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "edgetune", "profiles"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "GOMP_SPINCOUNT = '10000'"),
        ({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY = 'ACTIVE'"),
    ],
)
def test_threads_that_wait_soon_sleep_unless_the_user_said_otherwise(given: dict[str, str], expected: str) -> None:
    code = "import atexit; atexit.register(lambda: __import__('torch')); from edgetune.cli.main import program; program()"
    clean = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"],
        env={**clean, **given, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    # What GNU's OpenMP says of itself as torch loads it.
    assert "OMP_WAIT_POLICY = " in done.stderr
    assert expected in done.stderr
    assert ("'10000'" in done.stderr) == (not given)
