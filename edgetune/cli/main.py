"""The shell around the commands: names, help, errors and exit codes. Imports nothing heavy, so that help is instant."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

import edgetune
from edgetune.determinism import spin_briefly
from edgetune.device.exitcodes import RunnerError
from edgetune.errors import EdgetuneError, ExitCode

__all__ = ["cli", "main", "program"]

COMMANDS: dict[str, tuple[str, str]] = {
    "build": ("edgetune.cli.build:command", "Build a verified bundle from a recipe: all stages in a line."),
    "init": ("edgetune.cli.init:command", "Write a commented recipe for images and a target."),
    "profiles": ("edgetune.cli.profiles:command", "List the boards that edgetune knows, or show one with its sources."),
    "profile": ("edgetune.cli.profile:command", "Write a profile of a board of your own: profile new."),
    "backbones": ("edgetune.cli.backbones:command", "List networks and where weights come from, or rank them."),
    "data": ("edgetune.cli.data:command", "Check images and what is known of them."),
    "train": ("edgetune.cli.train:command", "Fine-tune a backbone on the decoded images."),
    "lr-find": ("edgetune.cli.lr_find:command", "Try ever larger learning rates and suggest one."),
    "export": ("edgetune.cli.export:command", "Turn a checkpoint into ONNX, preprocessing included."),
    "quantize": ("edgetune.cli.quantize:command", "Turn an fp32 ONNX classifier into int8 as the target wants it."),
    "sensitivity": ("edgetune.cli.sensitivity:command", "Rank layers by the damage that each does in integers."),
    "check": ("edgetune.cli.check:command", "Verify a bundle's digests, then measure and judge it again."),
    "compare": ("edgetune.cli.compare:command", "Hold a candidate against its baseline: is it worse?"),
    "baseline": ("edgetune.cli.baseline:command", "Accept a bundle as the baseline of later comparisons."),
    "hotspots": ("edgetune.cli.hotspots:command", "Say where a model's time goes on a device, layer by layer."),
    "tune": ("edgetune.cli.tune:command", "Search threads, spinning and memory arena on a device."),
    "sign": ("edgetune.cli.sign:command", "Say which release a bundle is, and sign it with an OpenSSH key."),
    "verify": ("edgetune.cli.verify:command", "Verify a bundle's signature and all of its files."),
    "ship": ("edgetune.cli.ship:command", "Put a signed bundle on devices, see how they stand, go back."),
    "predict": ("edgetune.cli.predict:command", "Say what a bundle sees in images, as the board does."),
    "doctor": ("edgetune.cli.doctor:command", "Describe a machine: what it fits and what is missing."),
}
"""Every command: where it is, and its line in the help, so that the help imports none of them."""

OUTER_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.EMFILE, errno.EFBIG)
"""What the machine refuses, and no code of ours can mend: a full disk, a folder that may not be written."""

EPILOG = """Exit codes: 0 all kept; 1 a bug; 2 usage or configuration; 3 target not available; 4 corrupt artefact; 5 unusable
data; 10 a verdict is BROKEN; 11 INCONCLUSIVE where --strict asks for certainty; 130 interrupted, resumable."""


class LazyGroup(click.Group):
    """A group that imports a command's module when that command is called, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with the nearest name.

        Raises:
            click.UsageError: there is no such command.
        """
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands' short helps without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    # The help must not depend on the terminal: the README shows it, and a test compares the two.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "terminal_width": 100},
)
@click.version_option(edgetune.__version__, prog_name="edgetune")
def cli() -> None:
    """From a folder of labelled images to an ONNX file that can be trusted on a board."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what went wrong goes to stderr.

    Args:
        arguments: of the command line, without the program's name; None for this process's own.
    """
    try:
        return _run(arguments)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted; run the same command again to resume")
        return int(ExitCode.INTERRUPTED)
    except click.ClickException as fault:
        fault.show()
        return int(ExitCode.USAGE)
    except EdgetuneError as fault:
        _say(str(fault))
        return int(fault.exit_code)
    except RunnerError as fault:
        _say(str(fault))
        return int(fault.code)
    except OSError as fault:
        if fault.errno not in OUTER_FAULTS:
            return _bug()
        place = f": {fault.filename}" if fault.filename else ""
        _say(f"{fault.strerror}{place}; what was built so far is kept, so mend that and run the same command again")
        return int(ExitCode.USAGE)
    except Exception:
        return _bug()


def program() -> None:
    """Run the command line of this process, and end the process with its exit code."""
    spin_briefly()
    code = main()
    if os.environ.get("WORLD_SIZE", "1") not in ("", "1"):
        # Threads of the group of processes may abort an interpreter that tidies up; everything is written by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    outcome: Any = cli.main(args=None if arguments is None else list(arguments), prog_name="edgetune", standalone_mode=False)
    sys.stdout.flush()
    return int(outcome) if isinstance(outcome, int) else int(ExitCode.OK)


def _bug() -> int:
    """Show the exception being handled, as what it is."""
    traceback.print_exc()
    _say("this is a bug in edgetune: please report it with the lines above")
    return int(ExitCode.UNFORESEEN)


def _say(text: str) -> None:
    click.echo(f"edgetune: {text}", err=True)


if __name__ == "__main__":
    program()
