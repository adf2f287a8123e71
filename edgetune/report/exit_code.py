"""From verdicts to the number that a continuous-integration job tests."""

from __future__ import annotations

from edgetune.artefacts import Report, VerdictName
from edgetune.errors import ExitCode

__all__ = ["code_of", "exit_code"]


def exit_code(report: Report, strict: bool = False) -> ExitCode:
    """Return 10 if a verdict is BROKEN, 11 if none is but one is INCONCLUSIVE and `strict` asks for certainty, else 0."""
    return code_of(report.overall, strict)


def code_of(overall: VerdictName, strict: bool = False) -> ExitCode:
    """Return the exit code of an overall verdict."""
    if overall == "BROKEN":
        return ExitCode.BROKEN
    if overall == "INCONCLUSIVE" and strict:
        return ExitCode.INCONCLUSIVE
    return ExitCode.OK
