"""One model under several session options, round by round."""

from __future__ import annotations

import json

import pytest

from edgetune.device import trials
from edgetune.device.exitcodes import RunnerError
from edgetune.device.request import read_request
from edgetune.device.session import open_session
from edgetune.device.trials import TrialsPlan, measure_trials

PRESENT = {"intra_op_threads": 1}
OTHERS = ({"intra_op_threads": 2}, {"memory_arena": False})


def test_rounds_go_through_all_candidates_there_and_back(model, monkeypatch):
    asked = []

    def pair(plan, paths, images, number):
        asked.append((plan.sessions, number))
        return [number, plan.sessions[1]]

    monkeypatch.setattr(trials, "measure_pair", pair)
    plan = TrialsPlan(model="a", present=PRESENT, candidates=OTHERS, rounds=2, first=4)
    said: list[str] = []
    found = measure_trials(plan, model, None, said.append)
    assert asked == [((PRESENT, other), number) for number, others in ((4, OTHERS), (5, OTHERS[::-1])) for other in others]
    # Whoever was first: the answer stands in the order of the request.
    assert found["rounds"] == [[{"sides": [number, other]} for other in OTHERS] for number in (4, 5)]
    assert said[-1] == "round 6 of 6, candidate 1 of 2"


def test_a_session_has_no_arena_if_its_options_say_so(model):
    settings = []
    for arena in (True, False):
        open_session(model, {"memory_arena": arena}, settings.append)
    assert [one.enable_cpu_mem_arena for one in settings] == [True, False]


def test_a_request_for_trials_is_read_strictly(model, tmp_path):
    content = {"schema": 1, "models": [{"name": "a", "path": str(model), "sha256": "0" * 64}], "session": {}}
    numbers = {"rounds": 0, "first": 0, "warmup": 1, "blocks": 1, "queries_per_block": True, "period_seconds": -1}
    file = tmp_path / "request.json"
    given = {"model": "z", "present": PRESENT, "candidates": [{"memory_arena": 1}], **numbers}
    file.write_text(json.dumps({**content, "trials": given}))
    with pytest.raises(RunnerError) as caught:
        read_request(file)
    for part in (
        "trials.model: got 'z'",
        "session.memory_arena",
        "trials.rounds",
        "trials.queries_per_block",
        "trials.period_seconds",
    ):
        assert part in str(caught.value)
    file.write_text(json.dumps({**content, "trials": {**given, "candidates": []}}))
    with pytest.raises(RunnerError, match=r"trials\.candidates: expected tables"):
        read_request(file)
