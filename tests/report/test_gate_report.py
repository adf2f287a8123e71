"""A comparison drawn for people and for CI systems: nothing in a name can break any of them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgetune.artefacts import VerdictRow
from edgetune.artefacts.comparison import ChangedDecision, Compared, Comparison
from edgetune.report.gate import console_lines, summary_markdown
from edgetune.report.gate_ci import github_annotations, junit_xml
from edgetune.report.gate_page import html_page

NASTY = "<b>|`x`\n::error::\x07, 100%"


@pytest.fixture
def comparison() -> Comparison:
    side = Compared(given=NASTY, kind="bundle", product="p", model_sha256="a" * 64, size_bytes=1)
    rows = tuple(
        VerdictRow(
            kind="accuracy",
            name=f"{verdict} {NASTY}",
            verdict=verdict,
            figure="1 %",
            limit="≤ 2 %",
            reason="" if verdict == "KEPT" else f"because {NASTY}",
            data={"samples": "10 images", "smallest": "3 points"},
        )
        for verdict in ("KEPT", "BROKEN", "INCONCLUSIVE", "SKIPPED")
    )
    changed = ChangedDecision(
        image=NASTY, index=0, label=NASTY, baseline=NASTY, candidate="b", effect="lost", margin=0.5, picture="changed/0.png"
    )
    return Comparison(
        overall="BROKEN",
        baseline=side,
        candidate=side,
        verdicts=rows,
        changed=(changed,),
        changed_total=1,
        where="here",
        environment={},
        tolerances={},
        warnings=(NASTY,),
    )


@pytest.mark.parametrize("strict", [False, True])
def test_junit_has_a_case_for_each_verdict(comparison, strict):
    suites = ElementTree.fromstring(junit_xml(comparison, strict))
    counts = [suites.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == (["4", "1", "1", "1"] if strict else ["4", "1", "0", "2"])
    cases = list(suites.iter("testcase"))
    kinds = [[child.tag for child in case] for case in cases]
    open_ = "error" if strict else "skipped"
    assert kinds == [["system-out"], ["failure", "system-out"], [open_, "system-out"], ["skipped", "system-out"]]
    assert cases[1].find("failure").get("message").startswith("because <b>|`x`")
    assert "from 10 images, enough to see 3 points" in cases[1].findtext("system-out")


def test_annotations_are_one_line_each(comparison):
    lines = list(github_annotations(comparison))
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning", "::notice"]
    for line in lines:
        assert "\n" not in line
        properties = line[2:].split("::")[0]
        assert "," not in properties
        assert properties.count(":") == 0
    assert "%0A::error::" in lines[0]


def test_markdown_keeps_its_table(comparison):
    text = summary_markdown(comparison, pictures=True)
    rows = [line for line in text.splitlines() if line.startswith(("| ✅", "| ❌", "| ❔", "| ⚪"))]
    assert len(rows) == 4
    assert {row.replace("\\|", "").count("|") for row in rows} == {9}
    assert "<b>" not in text.replace("\\<b\\>", "")
    assert "| ![](changed/0.png) |" in text


def test_a_page_escapes_names_and_holds_its_pictures(comparison, tmp_path):
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed" / "0.png").write_bytes(b"png")
    page = html_page(comparison, tmp_path)
    assert NASTY[:3] not in page.replace("<b>&lt;b&gt;", "")
    assert "data:image/png;base64,cG5n" in page


def test_the_console_says_the_word_last(comparison):
    lines = list(console_lines(comparison))
    assert lines[-1] == "BROKEN: the candidate is worse than its baseline by more than a tolerance"
    assert any("from 10 images, enough to see 3 points" in line for line in lines)
