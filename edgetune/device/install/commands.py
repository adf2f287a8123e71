"""`runner.pyz install …`: one JSON document on stdout, or a sentence on stderr and an exit code."""

from __future__ import annotations

import argparse
import base64
import errno
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..atomic import json_text
from ..digest import parse_json
from ..exitcodes import ExitCode, RunnerError
from .activate import activate, confirm, roll_back
from .back import recovered
from .place import Place, alone
from .receive import begin, read_head
from .settings import Settings, read_settings
from .setup import events, set_up, status
from .state import read_state
from .timer import watch_detached
from .trial import prove_here

REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "make the filesystem writable",
    errno.EIO: "look at the storage: it failed to read or write",
    errno.EACCES: "give the folder to this user",
    errno.EPERM: "give the folder to this user",
}


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add `install`'s own commands to its parser."""
    commands = parser.add_subparsers(metavar="STEP", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("place", metavar="FOLDER", type=lambda folder: Place(Path(folder)))
        sub.set_defaults(command=lambda asked: _guarded(command, asked))
        return sub

    add("setup", _setup, "Make a product's folder from JSON on stdin: settings, and files of signers and revoked keys.")
    receive = add("begin", _begin, "Verify the manifest and signature on stdin and say which files are needed.")
    activate_ = add("activate", _activate, "Install what has arrived, switch to it and judge it.")
    keep = add("confirm", _confirm, "Keep the release that is being tried.")
    for sub in (receive, activate_):
        sub.add_argument("--shipper", required=True)
        sub.add_argument("--forgive", action="store_true")
    for sub in (activate_, keep):
        sub.add_argument("manifest_sha256")
    back = add("rollback", _rollback, "Go back to an earlier release, or end a trial.")
    back.add_argument("--to", metavar="RELEASE")
    add("status", _status, "Say how a product stands.")
    add("recover", _recover, "Mend what a power cut has left behind; for the boot of the device.")
    log = add("log", _log, "Print the last events.")
    log.add_argument("--lines", type=int, default=20)
    timer = add("_timer", _timer, "Watch a release that is being tried (started by activate).")
    timer.add_argument("release")
    add("_prove", _prove, "Run the golden images of a bundle (started by activate).")


def _guarded(command: Callable[[argparse.Namespace], int], asked: argparse.Namespace) -> int:
    """Run a command; what the operating system refuses becomes a sentence that says what still stands.

    Raises:
        RunnerError: as the command; or TARGET for such a refusal.
    """
    try:
        return command(asked)
    except OSError as fault:
        what = f"{fault.filename or asked.place.folder}: {fault.strerror or fault}"
        remedy = f"{REMEDIES.get(fault.errno or 0, 'mend that')} and try again"
        raise RunnerError(f"{what}; {remedy}; {_standing(asked.place)}", ExitCode.TARGET) from None


def _standing(place: Place) -> str:
    try:
        linked, state = place.linked(), read_state(place)
    except (RunnerError, OSError):
        return "what current leads to was not touched"
    if linked is not None and linked == state.attempt and linked != state.current:
        return f"{linked} will be taken back by the next command"
    return f"current is {linked or 'nothing'}, as before"


def _print(value: Any) -> int:
    sys.stdout.write(json_text(value))
    return int(ExitCode.OK)


def _setup(asked: argparse.Namespace) -> int:
    given = parse_json(sys.stdin.buffer.read(), "the settings on stdin")
    known = {field.name for field in fields(Settings)}
    wanted = given.get("settings") if isinstance(given, dict) else None
    if not isinstance(wanted, dict) or not set(wanted) <= known or "product" not in wanted:
        raise RunnerError(f"expected settings of {', '.join(sorted(known))}", ExitCode.USAGE)
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in wanted.items()}
    texts = [_file(given.get(key), key) for key in ("allowed_signers", "revoked_keys")]
    return _print(set_up(asked.place, Settings(**values), *texts))


def _file(text: Any, name: str) -> bytes | None:
    try:
        return None if text is None else base64.b64decode(text, validate=True)
    except (ValueError, TypeError):
        raise RunnerError(f"{name}: expected a file in base64", ExitCode.USAGE) from None


def _begin(asked: argparse.Namespace) -> int:
    return _print(begin(asked.place, *read_head(sys.stdin.buffer), asked.shipper, asked.forgive))


def _activate(asked: argparse.Namespace) -> int:
    return _print(activate(asked.place, asked.manifest_sha256, asked.shipper, asked.forgive))


def _confirm(asked: argparse.Namespace) -> int:
    return _print(confirm(asked.place, asked.manifest_sha256))


def _rollback(asked: argparse.Namespace) -> int:
    return _print(roll_back(asked.place, asked.to))


def _status(asked: argparse.Namespace) -> int:
    return _print(status(asked.place))


def _recover(asked: argparse.Namespace) -> int:
    settings = read_settings(asked.place)
    with alone(asked.place):
        state = recovered(asked.place, settings)
    return _print({"state": state.state, "current": state.current, "reason": state.reason})


def _log(asked: argparse.Namespace) -> int:
    sys.stdout.write("".join(line + "\n" for line in events(asked.place, max(1, asked.lines))))
    return int(ExitCode.OK)


def _timer(asked: argparse.Namespace) -> int:
    return watch_detached(asked.place, asked.release)


def _prove(asked: argparse.Namespace) -> int:
    return _print(prove_here(asked.place.folder))
