"""A comparison as machines read it: JUnit XML for test reports, workflow commands for annotations on GitHub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from edgetune.artefacts import VerdictRow
from edgetune.artefacts.comparison import Comparison
from edgetune.report.gate import seen_in_words, title, verdict_in_words

__all__ = ["github_annotations", "junit_xml"]

NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to say."""
LEVELS = {"BROKEN": "error", "INCONCLUSIVE": "warning"}


def junit_xml(comparison: Comparison, strict: bool) -> bytes:
    """Return the comparison as JUnit XML: a test case for each verdict.

    BROKEN is a failure, INCONCLUSIVE is skipped, or an error where `strict` asks for certainty, SKIPPED is skipped.
    """
    rows = comparison.verdicts
    counts = {name: sum(row.verdict == name for row in rows) for name in ("BROKEN", "INCONCLUSIVE", "SKIPPED")}
    errors = counts["INCONCLUSIVE"] if strict else 0
    numbers = {
        "tests": str(len(rows)),
        "failures": str(counts["BROKEN"]),
        "errors": str(errors),
        "skipped": str(counts["SKIPPED"] + counts["INCONCLUSIVE"] - errors),
    }
    root = ElementTree.Element("testsuites", {"name": "edgetune compare", **numbers})
    suite = ElementTree.SubElement(root, "testsuite", {"name": _plain(title(comparison)), **numbers})
    for row in rows:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": f"edgetune.compare.{row.kind}", "name": _plain(row.name)}
        )
        said = _plain(_sentence(row))
        if row.verdict == "BROKEN":
            ElementTree.SubElement(case, "failure", {"message": said, "type": "BROKEN"}).text = said
        elif row.verdict == "INCONCLUSIVE" and strict:
            ElementTree.SubElement(case, "error", {"message": said, "type": "INCONCLUSIVE"}).text = said
        elif row.verdict != "KEPT":
            ElementTree.SubElement(case, "skipped", {"message": f"{row.verdict}: {said}"})
        ElementTree.SubElement(case, "system-out").text = said
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _plain(text: str) -> str:
    return NOT_IN_XML.sub("�", text)


def _sentence(row: VerdictRow) -> str:
    allowed = f"allowed {row.limit}" if row.limit else ""
    return "; ".join(part for part in (row.reason, row.figure, allowed, seen_in_words(row)) if part)


def github_annotations(comparison: Comparison) -> Iterator[str]:
    """Yield GitHub's workflow commands: an error for each BROKEN, a warning for each INCONCLUSIVE, and a notice of it all."""
    for row in comparison.verdicts:
        if row.verdict in LEVELS:
            yield f"::{LEVELS[row.verdict]} title={_property(f'edgetune: {row.name} {row.verdict}')}::{_data(_sentence(row))}"
    yield f"::notice title={_property(f'edgetune compare: {comparison.overall}')}::{_data(verdict_in_words(comparison))}"


def _data(text: str) -> str:
    """Return a text that cannot end a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
