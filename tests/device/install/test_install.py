"""An installation from begin to confirm, what it refuses, and what it keeps; the old release answers throughout."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgetune.device.digest import check_bundle
from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.install import preflight
from edgetune.device.install.activate import activate
from edgetune.device.install.place import Place, alone
from edgetune.device.install.receive import begin
from edgetune.device.install.retention import in_use
from edgetune.device.install.settings import Settings, read_settings, write_settings
from edgetune.device.install.setup import set_up, status
from edgetune.device.install.state import COMMITTED, ROLLED_BACK, read_state

from .answers import answering


def events(place: Place) -> list[str]:
    return [json.loads(line)["event"] for line in place.log.read_text().splitlines()]


def test_a_release_is_received_tried_confirmed_and_linked(place, release, install):
    name = install(release(1))
    state = read_state(place)
    assert answering(place) == name == state.current
    assert (state.state, state.highest_counter, state.history) == (COMMITTED, 1, (name,))
    assert list(place.incoming.glob("*/")) == []
    assert events(place) == ["set-up", "receiving", "trying", "healthy", "committed"]


def test_model_and_labels_are_all_that_another_program_needs(place, release, install):
    import onnxruntime

    install(release(1))
    session = onnxruntime.InferenceSession(str(place.folder / "current/model.onnx"), providers=["CPUExecutionProvider"])
    labels = json.loads((place.folder / "current/labels.json").read_text())
    assert session.get_outputs()[0].shape[1] == len(labels)


def test_what_is_current_already_needs_nothing(place, release, install, hand):
    folder = release(1)
    install(folder)
    answer = begin(place, *hand.head_of(folder), hand.shipper)
    assert (answer["installed"], answer["needed"]) == (True, [])


def test_files_that_are_there_are_not_asked_for_again_and_changed_ones_are(place, release, hand):
    folder = release(1)
    begun = begin(place, *hand.head_of(folder), hand.shipper)
    there = Path(begun["folder"])
    shutil.copyfile(folder / "model.onnx", there / "model.onnx")
    shutil.copyfile(folder / "labels.json", there / "labels.json")
    (there / "labels.json").write_bytes(b"[]")
    names = {row["name"] for row in begin(place, *hand.head_of(folder), hand.shipper)["needed"]}
    assert "model.onnx" not in names
    assert "labels.json" in names


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_file_is_refused_and_asked_for_again(place, release, install, hand, damage):
    old = install(release(1))
    folder = release(2)
    sha256 = hand.bring(place, folder)
    target = place.incoming / sha256 / "model.onnx"
    content = bytearray(target.read_bytes())
    content[100] ^= 1
    if damage == "missing":
        target.unlink()
    else:
        target.write_bytes(content if damage == "flipped" else content[:50])
    with pytest.raises(RunnerError, match=r"model\.onnx") as caught:
        activate(place, sha256, hand.shipper, proving=hand.quick, starting=hand.untimed)
    assert caught.value.code == ExitCode.ARTEFACT
    assert answering(place) == old
    assert [row["name"] for row in begin(place, *hand.head_of(folder), hand.shipper)["needed"]] == ["model.onnx"]


def test_what_an_upload_left_beside_the_files_does_not_come_along(place, release, hand):
    sha256 = hand.bring(place, release(1))
    there = place.incoming / sha256
    (there / "model.onnx.part").write_bytes(b"x")
    (there / "extra").mkdir()
    (there / "extra/link").symlink_to("/etc/passwd")
    answer = activate(place, sha256, hand.shipper, proving=hand.quick, starting=hand.untimed)
    check_bundle(place.release(answer["release"]))


def test_an_older_counter_is_refused(place, release, install):
    old = install(release(7))
    for counter in (7, 6):
        with pytest.raises(RunnerError, match=r"not above 7") as caught:
            install(release(10 + counter, counter=counter))
        assert caught.value.code == ExitCode.ARTEFACT
    assert answering(place) == old


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"product": "other"}, "product: got 'other'"),
        ({"product": None}, "product: got None"),
        ({"counter": 0}, "counter: got 0"),
        ({"counter": True}, "counter: got True"),
        ({"counter": 10**16}, "counter: got 1"),
        ({"counter": None}, "edgetune sign"),
        ({"model": {"file": "other.onnx"}}, r"model\.file: expected model\.onnx"),
        ({"profile": None}, "does not say its profile"),
        ({"profile": {"architecture": "sparc"}}, "it is for sparc"),
        ({"profile": {"architecture": "any", "features": ["frobnicate"]}}, "lacks frobnicate"),
        ({"profile": {"architecture": "any", "min_onnxruntime": "99.1"}}, r"99\.1 or newer is needed"),
    ],
)
def test_a_release_for_something_else_is_refused_before_anything_is_placed(place, release, hand, changes, words):
    with pytest.raises(RunnerError, match=words):
        hand.bring(place, release(1, **changes))
    assert [path.name for path in place.incoming.iterdir()] in ([], ["lease.json"])


def test_two_ships_at_once_are_one_and_a_refusal(place, release, hand):
    hand.bring(place, release(1))
    with pytest.raises(RunnerError, match="another host is shipping") as caught:
        hand.bring(place, release(2), shipper="b" * 32)
    assert caught.value.code == ExitCode.USAGE
    long_ago = time.time() - 60
    for path in place.incoming.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    hand.bring(place, release(3), shipper="b" * 32)


def test_the_lock_is_held_by_one(place, monkeypatch):
    monkeypatch.setattr("edgetune.device.install.place.PATIENCE_S", 0.05)
    with alone(place), pytest.raises(RunnerError, match="another process installs here"), alone(place):
        pass
    assert status(place)["busy"] is False


@pytest.mark.parametrize("hook", ["restart", "health"])
@pytest.mark.parametrize(("command", "words"), [(["false"], "ended with 1"), (["sleep", "60"], "did not end within 0.3 s")])
def test_a_hook_that_fails_or_hangs_takes_the_release_back(place, release, install, hand, hook, command, words):
    old = install(release(1))
    settings = replace(read_settings(place), restart_s=0.3, health_s=0.3, **{hook: tuple(command)})
    write_settings(place, settings)
    folder = release(2)
    sha256 = hand.bring(place, folder)
    with pytest.raises(RunnerError, match=rf"was taken back: the {hook} command .*{words}; current is {old} again"):
        activate(place, sha256, hand.shipper, proving=hand.quick, starting=hand.untimed)
    state = read_state(place)
    assert (answering(place), state.state, state.current, state.bad) == (old, ROLLED_BACK, old, (sha256,))
    with pytest.raises(RunnerError, match="was taken back here before"):
        hand.bring(place, folder)


def test_the_hooks_are_told_what_is_loaded_and_run_after_the_way_back_too(place, release, install, tmp_path):
    script = tmp_path / "hook"
    script.write_text(
        f'#!/bin/sh\nreadlink "$EDGETUNE_PRODUCT/current" >> {tmp_path}/seen\necho $EDGETUNE_RELEASE >> {tmp_path}/seen\n'
    )
    script.chmod(0o755)
    write_settings(place, replace(read_settings(place), restart=(str(script),)))
    name = install(release(1))
    assert (tmp_path / "seen").read_text().split() == [f"releases/{name}", name]


def test_golden_images_that_differ_are_found_before_the_switch(place, release, install, hand, again):
    import numpy as np

    old = install(release(1))
    folder = release(2)
    logits = np.load(folder / "golden/logits.npy")
    np.save(folder / "golden/logits.npy", logits + 1)
    again(folder)
    sha256 = hand.bring(place, folder)
    with pytest.raises(RunnerError, match="golden logits: off by up to 1") as caught:
        activate(place, sha256, hand.shipper, starting=hand.untimed)
    assert caught.value.code == ExitCode.BROKEN
    assert (answering(place), "trying" in events(place)[5:]) == (old, False)


def test_a_budget_that_is_missed_is_broken(place, release, hand):
    limits = json.loads((release(9) / "manifest.json").read_text())["limits"]
    sha256 = hand.bring(place, release(1, limits={**limits, "latency_p90_ms": 1e-6}))
    with pytest.raises(RunnerError, match=r"latency: p90 .* the budget is 1e-06 ms"):
        activate(place, sha256, hand.shipper, starting=hand.untimed)


def test_a_golden_process_that_is_killed_or_hangs_is_said(place, release, hand, tmp_path, monkeypatch):
    from edgetune.device.install import trial

    sha256 = hand.bring(place, release(1))
    script = tmp_path / "script.sh"
    monkeypatch.setattr(trial, "own_command", lambda: ["sh", str(script)])
    for text, words in (("kill -9 $$", "died by SIGKILL .*memory ran out"), ("sleep 60", "did not end within 0.3 s")):
        script.write_text(text)
        write_settings(place, replace(read_settings(place), health_s=0.3 if "sleep" in text else 30.0))
        with pytest.raises(RunnerError, match=words):
            activate(place, sha256, hand.shipper, starting=hand.untimed)
    assert answering(place) is None


def test_three_are_kept_and_what_a_program_has_open(place, release, install):
    names = [install(release(1))]
    with (place.release(names[0]) / "model.onnx").open("rb"):
        assert in_use(place.release(names[0]))
        names += [install(release(number)) for number in (2, 3, 4)]
        assert place.names() == names[::-1]
    names.append(install(release(5)))
    assert place.names() == names[:1:-1]
    assert read_state(place).history == tuple(names[:1:-1])


@pytest.mark.parametrize(
    ("free_bytes", "free_inodes", "words"), [(10, 10**6, "no space left: .* 10 are free"), (1 << 40, 3, "no inodes left: ")]
)
def test_without_room_nothing_is_received(place, release, hand, monkeypatch, free_bytes, free_inodes, words):
    class Facts:
        f_bavail, f_frsize, f_files, f_favail, f_flag = free_bytes, 1, 10**6, free_inodes, 0

    monkeypatch.setattr(preflight.os, "statvfs", lambda path: Facts)
    with pytest.raises(RunnerError, match=words) as caught:
        hand.bring(place, release(1))
    assert caught.value.code == ExitCode.TARGET


def test_a_filesystem_that_is_read_only_in_memory_or_without_links_is_refused(place, monkeypatch):
    monkeypatch.setattr(preflight, "filesystem", lambda path: "tmpfs")
    with pytest.raises(RunnerError, match="lies in memory"):
        preflight.check_folder(place, replace(read_settings(place), allow_volatile=False))
    monkeypatch.setattr(
        preflight.Path, "symlink_to", lambda *given: (_ for _ in ()).throw(OSError(1, "Operation not permitted"))
    )
    with pytest.raises(RunnerError, match="no symbolic link can be made: Operation not permitted"):
        preflight.check_folder(place, read_settings(place))

    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(preflight.os, "statvfs", lambda path: ReadOnly)
    with pytest.raises(RunnerError, match="read-only"):
        preflight.check_folder(place, read_settings(place))


def test_the_filesystem_of_a_path_is_known():
    assert preflight.filesystem(Path("/proc/self")) == "proc"
    assert preflight.filesystem(Path("/sys/kernel")) in ("sysfs", "")


def test_a_clock_in_1970_changes_nothing(place, release, install, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 12.0)
    monkeypatch.setattr(time, "gmtime", lambda *given: time.struct_time((1970, 1, 1, 0, 0, 12, 3, 1, 0)))
    assert install(release(1)) == answering(place)
    assert '"1970-01-01' in place.log.read_text()


def test_a_folder_that_was_not_set_up_says_so(tmp_path):
    with pytest.raises(RunnerError, match="not set up") as caught:
        status(Place(tmp_path))
    assert caught.value.code == ExitCode.USAGE


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": 1, "state": "COMMITTED"}', b"[]", b"\xff"])
def test_a_state_that_is_none_is_said_and_the_link_stays(place, release, install, content):
    name = install(release(1))
    place.state.write_bytes(content)
    with pytest.raises(RunnerError) as caught:
        status(place)
    assert caught.value.code == ExitCode.ARTEFACT
    assert answering(place) == name


@pytest.mark.parametrize(
    ("changes", "fault"), [({"product": "../x"}, "product"), ({"confirm_s": 0}, "confirm_s"), ({"trust": "none"}, "trust")]
)
def test_settings_that_cannot_be_are_refused(place, publisher, changes, fault):
    with pytest.raises(RunnerError, match=rf"{fault}: got") as caught:
        set_up(place, replace(Settings(product="colours", allow_volatile=True), **changes), publisher.signers(), None)
    assert caught.value.code == ExitCode.USAGE
    assert read_settings(place).product == "colours"


def test_hash_only_is_declared_and_then_takes_unsigned_bundles(place, release, install):
    folder = release(1)
    (folder / "manifest.json.sig").unlink()
    with pytest.raises(RunnerError, match="not signed"):
        install(folder)
    set_up(place, replace(read_settings(place), trust="hash-only"), None, None)
    assert install(folder) == answering(place)
    assert status(place)["trust"] == "hash-only"
