"""Session options: what is tried, what is chosen, and what is written."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from edgetune.cli.main import main
from edgetune.device.session import open_session
from edgetune.errors import TargetError, UsageError
from edgetune.gate.sides import read_side
from edgetune.profile import load_profile
from edgetune.progress import Silent
from edgetune.release.load import load_bundle
from edgetune.release.tuned import write_session
from edgetune.tuning import keeping, search
from edgetune.tuning.candidates import SPINNING, Candidate, candidates, in_words
from edgetune.tuning.keeping import into_bundle, into_profile
from edgetune.tuning.search import Effort, Pace, judged, tune

PRESENT = {"providers": ["CPUExecutionProvider"], "intra_op_threads": 1, "graph_optimization": "basic"}
FACTS = {
    "architecture": "x86_64",
    "name": "a processor",
    "machine_model": "a board",
    "cores": 4,
    "features": ["avx2"],
    "onnxruntime": "1.20.0",
    "python": "3.11",
}
RECORD = {"measured_on": "a board", "change_percent": -20.0, "low_percent": -22.0, "high_percent": -18.0, "pairs": 12}


class Board:
    """A device as far as a verdict asks it."""

    where = "a board"
    environment = FACTS


def pairs(ratio: float, count: int = 12, spread: float = 0.004) -> list[dict]:
    """Return pairs in which the second takes `ratio` times as long as the first, give or take."""
    rng = np.random.default_rng(int(ratio * 1000))
    made = []
    for _ in range(count):
        before, after = 1.0, ratio * float(np.exp(rng.normal(0, spread)))
        sides = [
            {"median_ms": time, "block_medians_ms": [time] * 3, "peak_memory_bytes": memory}
            for time, memory in ((before, 2_000_000), (after, 1_000_000))
        ]
        made.append({"sides": sides})
    return made


def verdict(*ratios: float, control: float = 1.0, restless: str = ""):
    some = [Candidate(words=f"c{number}", options={"intra_op_threads": number + 2}) for number in range(len(ratios))]
    final = [(Candidate(words="present", options=PRESENT), pairs(control))]
    final += [(one, pairs(ratio)) for one, ratio in zip(some, ratios, strict=True)]
    spare = Candidate(words="spare", options={"intra_op_threads": 9})
    return judged(Board(), PRESENT, final, [(some[0], pairs(1.0, 1)), (spare, pairs(0.5, 1))], restless)


def test_what_is_tried_on_four_cores():
    found = candidates(PRESENT, 4)
    words = [one.words for one in found]
    assert len(set(words)) == len(words) == 9
    assert "1 thread, arena" not in words
    assert "3 threads, spinning, arena" not in words
    assert {one.options["graph_optimization"] for one in found} == {"basic"}
    quiet = next(one for one in found if one.words == "4 threads, no spinning, no arena")
    assert (quiet.options["config"], quiet.options["memory_arena"]) == ({SPINNING: "0"}, False)


def test_options_that_mean_the_present_ones_are_not_tried():
    present = {**PRESENT, "memory_arena": True, "intra_op_threads": 3, "config": {SPINNING: "1", "other": "x"}}
    found = candidates(present, 2)
    assert in_words(present) not in [one.words for one in found]
    assert {one.options["intra_op_threads"] for one in found} == {1, 2, 3}
    assert all(one.options["config"]["other"] == "x" for one in found)


def test_the_fastest_beyond_the_noise_is_taken():
    found = verdict(0.9, 0.8, 1.1)
    assert found.best is not None
    assert found.best.words == "c1"
    assert found.best.peak_memory_bytes == 1_000_000
    assert found.best.percent()[0] == pytest.approx(-20, abs=1)
    # What was only tried once is shown, and never taken.
    assert [trial.part for trial in found.trials] == ["control", "final", "final", "final", "screening"]
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["trials"][-1]["high_percent"] is None


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (verdict(1.0, 1.02), "no other settings are faster beyond the noise"),
        (verdict(0.8, control=0.95), "the device is too restless"),
        (verdict(0.8, restless="the governor changed"), "the governor changed"),
    ],
)
def test_the_present_options_stay(found, reason):
    assert found.best is None
    assert found.reason.startswith(reason)


def test_blocks_are_longer_for_fast_models_slow_paces_and_least_times():
    effort = Effort(rounds=10, blocks=10)
    assert Pace().queries_per_block(1.0, effort) == 8
    assert Pace().queries_per_block(0.01, effort) == 64
    assert Pace(period_s=0.1).queries_per_block(1.0, effort) == 5
    # A hundred blocks of 100 ms each.
    assert Pace(min_seconds=10).queries_per_block(1.0, effort) == 100
    assert Pace(min_seconds=60, period_s=0.1).queries_per_block(1.0, effort) == 6


def test_a_search_on_this_machine_has_a_control_and_finalists(bundle, monkeypatch):
    monkeypatch.setattr(search, "candidates", lambda present, cores: candidates(present, 1))
    effort = Effort(screening=1, finalists=1, rounds=1, blocks=2)
    found = tune(read_side(bundle("tuned"), "model"), "local", Silent(), effort=effort)
    assert [trial.part for trial in found.trials][:2] == ["control", "final"]
    assert [trial.words for trial in found.trials] == ["1 thread, arena (present)", "1 thread, no arena"]
    # One pair each cannot tell anything.
    assert found.best is None


def test_more_threads_than_there_are_are_lowered_and_that_is_written(bundle, monkeypatch, tmp_path):
    folder = bundle("tuned")
    threads = 2 * len(os.sched_getaffinity(0))
    write_session(folder, {**load_bundle(folder)["session"], "intra_op_threads": threads}, RECORD)
    monkeypatch.setattr(search, "candidates", lambda present, cores: candidates(present, cores)[:1])
    side, effort = read_side(folder, "model"), Effort(screening=1, finalists=1, rounds=1, blocks=2)
    found = tune(side, "local", Silent(), effort=effort)
    cores = found.environment["cores"]
    assert found.lowered == (f"intra_op_threads = {cores} instead of {threads}, as it has no more cores",)
    assert found.best is None
    assert found.kept.options["intra_op_threads"] == found.present["intra_op_threads"] == cores
    copy = into_bundle(side, found, "local", Silent(), tmp_path / "copy")
    assert load_bundle(copy)["session"]["intra_op_threads"] == cores
    assert found.lowered[0] in (copy / "README.md").read_text()


def test_a_device_that_is_not_the_target_is_shown_but_not_written_for(bundle):
    side = read_side(bundle("tuned"), "model")
    foreign = replace(side, manifest={**side.manifest, "profile": {**side.manifest["profile"], "architecture": "riscv64"}})
    with pytest.raises(TargetError, match="is not the device that colours was built for: architecture"):
        tune(foreign, "local", Silent(), must_be_target=True)


def test_better_options_are_written_and_everything_stays_true(bundle, tmp_path):
    folder = bundle("tuned")
    (folder / "report.json").chmod(0o644)
    built = load_bundle(folder)["session"]
    options = {**built, "intra_op_threads": 2, "memory_arena": False}
    assert write_session(folder, options, RECORD, tmp_path / "copy") == tmp_path / "copy"
    assert load_bundle(folder)["session"] == built
    write_session(folder, {**built, "intra_op_threads": 2}, RECORD)
    write_session(folder, options, {**RECORD, "change_percent": -3.0})
    manifest = load_bundle(folder)
    assert manifest["session"] == options
    assert manifest["tuning"]["built"] == built
    assert manifest["tuning"]["before"] == {**built, "intra_op_threads": 2}
    card, report = (folder / "README.md").read_text(), json.loads((folder / "report.json").read_text())
    assert card.count("## Session options") == 1
    assert "-3.0 %" in card
    assert [text for text in report["warnings"] if "Tuned after the build" in text] == [card.splitlines()[-1]]
    assert open_session(folder / "model.onnx", manifest["session"])
    if (folder.parent / "recipe.toml").exists():
        pytest.fail("a bundle of a test lies in no run")
    (folder.parent / "recipe.toml").touch()
    with pytest.raises(UsageError, match="belongs to a run"):
        write_session(folder, options, RECORD)


def test_a_release_is_refused_before_anything_is_measured(bundle, capsys):
    folder = bundle("signed")
    assert main(["sign", str(folder), "--unsigned", "--counter", "3"]) == 0
    assert main(["tune", str(folder), "--write"]) == 2
    assert "is a release already" in capsys.readouterr().err
    assert main(["tune", str(folder / "model.onnx"), "--write"]) == 2
    assert "is no bundle" in capsys.readouterr().err
    assert main(["tune", str(folder), "--profile-out", "board.txt"]) == 2


def test_the_best_options_are_proven_on_the_golden_images_first(bundle, monkeypatch):
    folder = bundle("tuned")
    found, side = verdict(0.8), read_side(folder, "model")
    monkeypatch.setattr(keeping, "broken_golden", lambda golden, shipped: ["it is so"])
    with pytest.raises(TargetError, match="golden images come out otherwise: it is so"):
        into_bundle(side, found, "local", Silent(), None)
    assert "tuning" not in load_bundle(folder)
    monkeypatch.undo()
    into_bundle(side, found, "local", Silent(), None)
    manifest = load_bundle(folder)
    assert (manifest["session"]["intra_op_threads"], manifest["tuning"]["processor"]) == (2, "a processor")


def test_a_profile_takes_the_options_with_their_source(bundle, tmp_path):
    path = tmp_path / "mine.toml"
    found = verdict(0.8)
    options = {**found.best.options, "memory_arena": False, "config": {SPINNING: "0"}}
    object.__setattr__(found.best, "options", options)
    into_profile(read_side(bundle("tuned"), "model"), found, path)
    profile = load_profile(str(path))
    session = profile.runtime.session_options()
    assert (session["intra_op_threads"], session["memory_arena"], session["config"]) == (2, False, {SPINNING: "0"})
    assert profile.sources["runtime.memory_arena"] == "searched by edgetune tune on a board, 12 pairs of processes"
