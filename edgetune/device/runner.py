"""The command line of the runner: `runner.pyz COMMAND …`. Results go to stdout, talk to stderr."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import RUNNER_VERSION
from .exitcodes import ExitCode, RunnerError

OUTER_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOMEM)
"""What the machine refuses, and no code of ours can mend: a full disk, a folder that may not be written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code.

    Args:
        arguments: without the program's name; None for those of the process.
    """
    for stream in (sys.stdout, sys.stderr):
        # A label or a path that the terminal's encoding cannot say must not end the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    asked = _parser(arguments).parse_args(arguments)
    try:
        code = int(asked.command(asked))
        sys.stdout.flush()
        return code
    except RunnerError as fault:
        _say(str(fault))
        return int(fault.code)
    except KeyboardInterrupt:
        _say("interrupted")
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of stdout left; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return int(ExitCode.OK)
    except ImportError as missing:
        # What the runner imports of itself is in the same file, so this is the device's Python.
        _say(f"{missing}; the runner needs numpy and onnxruntime, try: {sys.executable} -m pip install numpy onnxruntime")
        return int(ExitCode.TARGET)
    except OSError as fault:
        if fault.errno not in OUTER_FAULTS:
            traceback.print_exc()
            return int(ExitCode.UNFORESEEN)
        _say((fault.strerror or str(fault)) + (f": {fault.filename}" if fault.filename else ""))
        return int(ExitCode.TARGET)
    except MemoryError:
        _say("killed for memory: this machine has too little of it for that")
        return int(ExitCode.TARGET)
    except Exception:
        traceback.print_exc()
        return int(ExitCode.UNFORESEEN)


def _parser(arguments: Sequence[str] | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runner", description="Verify, run and measure an edgetune bundle on this machine.")
    parser.add_argument("--version", action="version", version=f"edgetune runner {RUNNER_VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str, aliases: Sequence[str] = ()) -> Any:
        sub = commands.add_parser(name, help=text, description=text, aliases=aliases)
        sub.set_defaults(command=command)
        return sub

    verify = add("verify", _verify, "Check that a bundle holds exactly the files that were built.")
    verify.add_argument("bundle", metavar="BUNDLE", type=Path)

    add("info", _info, "Print what this machine is and how it is doing, as JSON.", aliases=["environment"])

    predict = add("predict", _predict, "Say what is in images.")
    predict.add_argument("bundle", metavar="BUNDLE", type=Path)
    predict.add_argument("images", metavar="IMAGE", type=Path, nargs="+")
    predict.add_argument("--top", metavar="K", type=_positive, default=5, help="classes to name for each image (default: 5)")
    predict.add_argument("--json", action="store_true", help="print JSON instead of lines")

    check = add("check", _check, "Verify a bundle, then run its golden images and measure it.")
    check.add_argument("bundle", metavar="BUNDLE", type=Path)
    check.add_argument("--json", action="store_true", help="print the measurement as JSON")
    check.add_argument("--quick", action="store_true", help="few queries, no footprint")

    measure = add("measure", _measure, "Measure models as a request file says.")
    measure.add_argument("request", metavar="REQUEST", type=Path)
    measure.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder for the results")

    install = commands.add_parser("install", help="Receive, verify, try, keep or take back releases of a product.")
    if "install" in (sys.argv[1:2] if arguments is None else list(arguments)[:1]):
        from .install.commands import add_commands

        add_commands(install)

    footprint = add("_footprint", _footprint, "Measure one model in this process (started by measure).")
    footprint.add_argument("model", type=Path)
    footprint.add_argument("session")

    turns = add("_turns", _turns, "Answer blocks of queries with one model in this process (started by measure).")
    turns.add_argument("model", type=Path)
    turns.add_argument("session")
    turns.add_argument("images")

    operators = add("_operators", _operators, "Profile one model in this process (started by measure).")
    operators.add_argument("model", type=Path)
    operators.add_argument("told")
    operators.add_argument("optimised", type=Path)

    throughput = add("_throughput", _throughput, "Measure parallel streams in this process (started by measure).")
    throughput.add_argument("model", type=Path)
    throughput.add_argument("told")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number from 1 on")
    return int(text)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _print_json(value: Any) -> None:
    from .atomic import json_text

    sys.stdout.write(json_text(value))


def _verify(asked: argparse.Namespace) -> int:
    from .digest import check_bundle

    manifest = check_bundle(asked.bundle)
    sys.stdout.write(f"{asked.bundle}: all {len(manifest['files'])} files are as built\n")
    return ExitCode.OK


def _info(asked: argparse.Namespace) -> int:
    from .environment import environment

    _print_json({"runner": RUNNER_VERSION, **environment()})
    return ExitCode.OK


def _predict(asked: argparse.Namespace) -> int:
    from .predict import in_words, predict

    rows = predict(asked.bundle, asked.images, asked.top)
    if asked.json:
        _print_json(rows)
        return ExitCode.OK
    for row in rows:
        sys.stdout.write(in_words(row) + "\n")
    return ExitCode.OK


def _check(asked: argparse.Namespace) -> int:
    from .check import check, lines

    measurement, broken = check(asked.bundle, asked.quick, _say)
    if asked.json:
        _print_json(measurement)
        for reason in broken:
            _say(reason)
    else:
        sys.stdout.write("".join(line + "\n" for line in lines(measurement, broken)))
    return ExitCode.BROKEN if broken else ExitCode.OK


def _measure(asked: argparse.Namespace) -> int:
    from .measure import MEASUREMENT, measure
    from .request import read_request

    request = read_request(asked.request)
    asked.out.mkdir(parents=True, exist_ok=True)
    measure(request, asked.out, _say)
    sys.stdout.write(f"{asked.out / MEASUREMENT}\n")
    return ExitCode.OK


def _footprint(asked: argparse.Namespace) -> int:
    from .digest import parse_json
    from .footprint import footprint_here

    _print_json(footprint_here(asked.model, parse_json(asked.session.encode("utf-8"), "session")))
    return ExitCode.OK


def _operators(asked: argparse.Namespace) -> int:
    from .operators import OperatorsPlan, operators_here

    options, images, plan = json.loads(asked.told)
    pictures = Path(images) if images else None
    _print_json(operators_here(asked.model, options, pictures, OperatorsPlan(**plan), asked.optimised))
    return ExitCode.OK


def _throughput(asked: argparse.Namespace) -> int:
    from .throughput import ThroughputPlan, throughput_here

    options, images, plan = json.loads(asked.told)
    pictures = Path(images) if images else None
    _print_json(throughput_here(asked.model, options, pictures, ThroughputPlan(**plan)))
    return ExitCode.OK


def _turns(asked: argparse.Namespace) -> int:
    from .digest import parse_json
    from .pairs import turns_here

    def answer(value: Any) -> None:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    options = parse_json(asked.session.encode("utf-8"), "session")
    turns_here(asked.model, options, Path(asked.images) if asked.images else None, sys.stdin, answer)
    return ExitCode.OK
