"""A fleet in waves: it stops at the first failures, and running it again finishes the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.cli.main import main
from edgetune.device.digest import check_bundle
from edgetune.errors import ArtefactError, TakenBack, TargetError, UsageError
from edgetune.progress import Silent
from edgetune.release.ship.device import Device, Outcome
from edgetune.release.ship.fleet import COMMITTED, FAILED, WAITING, Progressed, load_fleet, waves_of
from edgetune.release.ship.rollout import roll_out

NAMES = [f"door-{number:02}" for number in range(20)]


@pytest.mark.parametrize(
    ("text", "waves"),
    [("1,10%,100%", [1, 2, 20]), ("100%", [20]), ("5", [5]), ("1, 3 ,40", [1, 3, 20]), ("1%,50%", [1, 10])],
)
def test_waves_are_numbers_or_parts_of_the_fleet(text, waves):
    assert waves_of(text, 20) == waves


@pytest.mark.parametrize("text", ["", "0", "x", "10%,1", "101%", "1,,2", "-1", "1.5"])
def test_waves_that_cannot_be_are_refused(text):
    with pytest.raises(UsageError, match="waves: got"):
        waves_of(text, 20)


def test_a_fleet_file_says_devices_and_roots(tmp_path):
    path = tmp_path / "fleet.toml"
    path.write_text('root = "/srv/a"\n[devices.one]\ndevice = "local"\n[devices.two]\ndevice = "local"\nroot = "/srv/b"\n')
    fleet = load_fleet(path)
    assert [fleet.root_of(name) for name in fleet.devices] == ["/srv/a", "/srv/b"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "devices"),
        ("[devices]", "devices"),
        ("[devices.one]\n", "device"),
        ('[devices.one]\ndevice = "local"\nrooot = "/"\n', "rooot"),
        ('[devices."../x"]\ndevice = "local"\n', "devices"),
        ('[devices.a]\ndevice = "local"\n[devices.b]\ndevice = "local"\n', "are the same place"),
        ("schema = 2\n", "schema 2"),
    ],
)
def test_a_fleet_file_that_is_wrong_is_refused(tmp_path, text, words):
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_fleet(path)
    assert words in str(caught.value)


class Fakes:
    """Devices that fail as they are told; what is shipped is counted."""

    def __init__(self, **failing: Exception) -> None:
        self.failing = {name.replace("_", "-"): fault for name, fault in failing.items()}
        self.shipped: list[str] = []

    def __call__(self, name: str) -> Outcome:
        self.shipped.append(name)
        if name in self.failing:
            raise self.failing[name]
        return Outcome(release="1-000000000000", sent=9)


def progressed(tmp_path: Path, sha256: str = "a" * 64) -> Progressed:
    return Progressed.load(tmp_path / "state.json", sha256, NAMES)


def roll(tmp_path: Path, ship: Fakes, waves: str = "1,10%,100%", most_failures: int = 0, parallel: int = 1):
    state = progressed(tmp_path)
    ended = roll_out(state, waves_of(waves, 20), ship, most_failures=most_failures, parallel=parallel, progress=Silent())
    return state, ended


def test_all_devices_get_it_wave_by_wave(tmp_path):
    ship = Fakes()
    state, ended = roll(tmp_path, ship)
    assert (ended.stopped, ship.shipped, state.with_status(COMMITTED)) == ("", NAMES, NAMES)
    assert roll(tmp_path, ship)[1].tried == ()


def test_the_first_failure_stops_it_and_nothing_else_begins(tmp_path):
    ship = Fakes(door_01=TakenBack("bad"))
    state, ended = roll(tmp_path, ship)
    assert ended.stopped == "stopped in wave 2: 1 failed, 0 may; 18 were not tried"
    assert ship.shipped == NAMES[:2]
    assert (state.with_status(FAILED), len(state.with_status(WAITING))) == (["door-01"], 18)


def test_a_wave_takes_others_in_place_of_the_failures_that_may_be(tmp_path):
    ship = Fakes(door_00=TargetError("off"), door_05=TargetError("off"))
    state, ended = roll(tmp_path, ship, waves="1,5", most_failures=2)
    assert (ended.stopped, state.with_status(COMMITTED)) == ("", ["door-01", "door-02", "door-03", "door-04", "door-06"])


def test_running_it_again_finishes_the_rest_and_tries_failures_last(tmp_path):
    ship = Fakes(door_00=TargetError("off"), door_07=TakenBack("bad"), door_13=ArtefactError("full"))
    for stopped in ("wave 1", "wave 3", "wave 3"):
        assert stopped in roll(tmp_path, ship)[1].stopped
    ship.failing.clear()
    ship.shipped.clear()
    state, ended = roll(tmp_path, ship)
    assert (ended.stopped, sorted(state.with_status(COMMITTED))) == ("", NAMES)
    assert ship.shipped[-3:] == ["door-00", "door-07", "door-13"]


@pytest.mark.parametrize("parallel", [1, 4])
def test_devices_at_a_time_never_begin_more_than_a_wave_holds(tmp_path, parallel):
    ship = Fakes(door_00=TargetError("off"))
    _, ended = roll(tmp_path, ship, waves="2", parallel=parallel)
    assert ended.stopped
    assert len(ship.shipped) <= 2


def test_another_release_begins_anew_and_a_spoilt_file_is_said(tmp_path):
    roll(tmp_path, Fakes())
    assert progressed(tmp_path, "b" * 64).with_status(WAITING) == NAMES
    for text in ("", "[]", '{"manifest_sha256": 1}', '{"manifest_sha256": "' + "a" * 64 + '", "devices": {"x": {"y": 1}}}'):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(ArtefactError, match="not the state of a fleet"):
            progressed(tmp_path)


def fleet_of(tmp_path: Path, link, publisher, count: int) -> tuple[Path, dict[str, Device]]:
    """Set folders of this machine up as devices, and write their fleet."""
    lines, devices = [], {}
    for name in NAMES[:count]:
        devices[name] = Device(link, "colours", str(tmp_path / name))
        devices[name].set_up({"product": "colours", "allow_volatile": True}, publisher.signers(), None)
        lines.append(f'[devices.{name}]\ndevice = "local"\nroot = "{tmp_path / name}"\n')
    (tmp_path / "fleet.toml").write_text("".join(lines))
    return tmp_path / "fleet.toml", devices


def ship(fleet: Path, bundle: Path, capsys, *options: str) -> tuple[int, dict]:
    code = main(["ship", str(bundle), "--fleet", str(fleet), "--json", *options])
    return code, json.loads(capsys.readouterr().out)


def test_a_fleet_of_real_runners_stops_and_is_finished_by_the_same_command(tmp_path, link, publisher, release, capsys):
    fleet, devices = fleet_of(tmp_path, link, publisher, 2)
    devices["door-01"].set_up({"product": "colours", "allow_volatile": True, "health": ["false"]}, None, None)
    folder = release(1)
    code, outcome = ship(fleet, folder, capsys, "--wave", "1,100%")
    assert (code, outcome["stopped"][:17]) == (3, "stopped in wave 2")
    assert outcome["devices"]["door-01"]["status"] == FAILED
    devices["door-01"].set_up({"product": "colours", "allow_volatile": True}, None, None)
    code, outcome = ship(fleet, folder, capsys, "--forgive")
    assert (code, outcome["stopped"], {row["status"] for row in outcome["devices"].values()}) == (0, "", {COMMITTED})
    for device in devices.values():
        check_bundle(Path(device.folder) / "current")
    code = main(["ship", str(folder), "--fleet", str(fleet)])
    assert (code, capsys.readouterr().out.splitlines()[-1]) == (0, "2 devices: 2 COMMITTED, 0 FAILED, 0 WAITING")


@pytest.mark.slow
def test_twenty_devices_of_which_three_fail_in_different_ways(tmp_path, link, publisher, release, capsys):
    """Forty installations with real golden images: some minutes."""
    fleet, devices = fleet_of(tmp_path, link, publisher, 20)
    devices["door-04"].set_up({"product": "colours", "allow_volatile": True, "health": ["false"]}, None, None)
    (Path(devices["door-09"].folder) / "runner.pyz").unlink()
    devices["door-15"].set_up({"product": "colours", "allow_volatile": True, "margin_bytes": 1 << 60}, None, None)
    folder, seen, failed = release(1), [], {}
    for _ in range(4):
        code, outcome = ship(fleet, folder, capsys, "--wave", "1,10%,100%", "--parallel", "2")
        seen.append((code, outcome["stopped"]))
        counts = [sum(row["status"] == how for row in outcome["devices"].values()) for how in (COMMITTED, FAILED, WAITING)]
        seen.append(tuple(counts))
        for name, row in outcome["devices"].items():
            if row["status"] == FAILED:
                failed.setdefault(name, row["detail"])
        if counts[2] == 0:
            break
    assert set(failed) == {"door-04", "door-09", "door-15"}
    assert "health command" in failed["door-04"]
    assert "not set up" in failed["door-09"]
    assert "no space left" in failed["door-15"]
    assert seen[0][1].startswith("stopped in wave 3")
    for name in failed:
        devices[name].set_up({"product": "colours", "allow_volatile": True}, publisher.signers(), None)
    code, outcome = ship(fleet, folder, capsys, "--forgive")
    seen.append((code, {row["status"] for row in outcome["devices"].values()}))
    assert seen[-1] == (0, {COMMITTED})
    assert [row for row in seen if isinstance(row[0], int) and len(row) == 3][-1] == (17, 3, 0), seen
    (tmp_path / "seen.json").write_text(repr((seen, failed)))
    for device in devices.values():
        check_bundle(Path(device.folder) / "current")
