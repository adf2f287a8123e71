"""How a stage tells a person where it stands, without knowing whether there is a terminal."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """What a stage may say while it works."""

    def line(self, text: str) -> None:
        """Say one sentence that stays on the screen and in a log."""

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        """Say that `done` of `total` units of `label` are done; may be called often."""


class Silent:
    """Says nothing."""

    def line(self, text: str) -> None:
        """Drop the sentence."""

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        """Drop the news."""
