"""What is taken back: a trial that nobody ends, a rollback by hand, releases that are corrupt by then."""

from __future__ import annotations

import pytest

from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.install.activate import activate, confirm, roll_back
from edgetune.device.install.back import recovered
from edgetune.device.install.place import lock_now
from edgetune.device.install.settings import read_settings
from edgetune.device.install.setup import status
from edgetune.device.install.state import COMMITTED, FAILED, ROLLED_BACK, TRYING, read_state

from .answers import answering


def test_without_a_timer_what_was_tried_is_taken_back_at_the_next_entry(place, release, install, hand):
    old = install(release(1))
    sha256 = hand.bring(place, release(2))
    activate(place, sha256, hand.shipper, proving=hand.quick, starting=hand.untimed)
    assert read_state(place).state == TRYING
    answer = status(place)
    assert (answer["state"], answer["current"], answer["bad"]) == (ROLLED_BACK, old, [sha256])
    assert answering(place) == old
    with pytest.raises(RunnerError, match="was taken back: it was being tried when the power") as caught:
        confirm(place, sha256)
    assert caught.value.code == ExitCode.BROKEN


def test_while_the_timer_lives_nothing_else_is_begun_and_rollback_ends_the_trial(place, release, install, hand):
    old = install(release(1))
    sha256 = hand.bring(place, release(2))
    activate(place, sha256, hand.shipper, proving=hand.quick, starting=hand.untimed)
    with lock_now(place.folder / "timer.lock") as held:
        assert held
        with pytest.raises(RunnerError, match="is being tried here"):
            hand.bring(place, release(3))
        answer = roll_back(place, proving=hand.quick)
    assert (answer["release"], answer["state"], answering(place)) == (old, ROLLED_BACK, old)


def test_what_was_taken_back_can_be_forgiven(place, release, install, hand):
    folder = release(1)
    activate(place, hand.bring(place, folder), hand.shipper, proving=hand.quick, starting=hand.untimed)
    assert status(place)["current"] is None
    with pytest.raises(RunnerError, match="--forgive"):
        install(folder)
    assert install(folder, forgive=True) == answering(place)


def test_rollback_goes_to_the_last_good_one_and_its_counter_does_not_come_down(place, release, install, hand):
    one, two = install(release(1)), install(release(2))
    assert roll_back(place, proving=hand.quick)["release"] == one == answering(place)
    state = read_state(place)
    assert (state.state, state.current, state.highest_counter) == (COMMITTED, one, 2)
    assert roll_back(place, two, proving=hand.quick)["release"] == two == answering(place)
    with pytest.raises(RunnerError, match=f"9-000000000000 is no earlier release here; there are {one}"):
        roll_back(place, "9-000000000000", proving=hand.quick)


def test_a_rollback_target_that_is_corrupt_is_passed_over(place, release, install, hand):
    one, two, three = (install(release(number)) for number in (1, 2, 3))
    (place.release(two) / "model.onnx").write_bytes(b"")
    answer = roll_back(place, proving=hand.quick)
    assert (answer["release"], answering(place)) == (one, one)
    assert answer["skipped"][0].startswith(f"{two}: ")
    assert three in read_state(place).history


def test_automatic_rollback_passes_over_a_corrupt_release_or_fails_aloud(place, release, install, hand):
    one, two = install(release(1)), install(release(2))
    activate(place, hand.bring(place, release(3)), hand.shipper, proving=hand.quick, starting=hand.untimed)
    (place.release(two) / "model.onnx").write_bytes(b"")
    assert recovered(place, read_settings(place)).current == one == answering(place)
    name = activate(place, hand.bring(place, release(4)), hand.shipper, proving=hand.quick, starting=hand.untimed)["release"]
    (place.release(one) / "labels.json").write_bytes(b"")
    state = recovered(place, read_settings(place))
    assert (state.state, place.linked()) == (FAILED, name)
    assert "cannot be used" in status(place)["reason"]
    assert install(release(5)) == answering(place)
