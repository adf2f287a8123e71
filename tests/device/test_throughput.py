"""Parallel streams at batch 1, and what sensors of energy say meanwhile."""

from __future__ import annotations

import json
import time

import pytest

from edgetune.device import energy
from edgetune.device.energy import metered, meters
from edgetune.device.exitcodes import RunnerError
from edgetune.device.request import read_request
from edgetune.device.session import open_session
from edgetune.device.throughput import ThroughputPlan, measure_throughput, throughput_here


@pytest.fixture
def sensors(tmp_path, monkeypatch):
    """A /sys/class of its own: `sensors(name=content)`, with `__` for a slash."""
    monkeypatch.setattr(energy, "SYS", tmp_path / "class")

    def write(**texts: object):
        for name, text in texts.items():
            path = tmp_path / "class" / name.replace("__", "/").replace("_colon_", ":").replace("_dash_", "-")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return tmp_path / "class"

    return write


PACKAGE = "powercap__intel_dash_rapl_colon_0"


def test_streams_are_counted_in_a_process_of_their_own(model):
    plan = ThroughputPlan(threads=(2, 1), seconds=0.1, rounds=2)
    found = measure_throughput(plan, model, {"intra_op_threads": 2}, None)
    assert [stream["threads"] for stream in found["streams"]] == [2, 1]
    for stream in found["streams"]:
        assert stream["images_per_second"] == pytest.approx(stream["queries"] / stream["seconds"], rel=0.05)
        assert len(stream["rounds"]) == 2
        assert stream["seconds"] >= 0.1
    assert (found["idle_watts"] is None) == bool(found["energy_skipped"])


def test_a_stream_that_fails_is_not_forgotten(model, monkeypatch):
    class Failing:
        def __init__(self, session):
            self.session, self.left = session, 12

        def run(self, outputs, feed):
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("no more")
            return self.session.run(outputs, feed)

        def get_inputs(self):
            return self.session.get_inputs()

    monkeypatch.setattr("edgetune.device.throughput.open_session", lambda path, options: Failing(open_session(path, options)))
    with pytest.raises(RuntimeError, match="no more"):
        throughput_here(model, {}, None, ThroughputPlan(threads=(2,), seconds=5.0, rounds=1))


def test_without_a_sensor_there_is_a_reason(sensors):
    assert meters() == ([], energy.NONE)


def test_a_sensor_that_may_not_be_read_is_the_reason(sensors, monkeypatch):
    root = sensors(**{f"{PACKAGE}__name": "package-0"})
    (root / "powercap/intel-rapl:0/energy_uj").mkdir()
    found, reason = meters()
    assert found == []
    assert reason == f"{root}/powercap/intel-rapl:0/energy_uj cannot be read: Is a directory"


def test_packages_and_rails_are_known_by_their_labels_and_parts_are_left_out(sensors):
    sensors(
        **{f"{PACKAGE}__name": "package-0", f"{PACKAGE}__energy_uj": 5, f"{PACKAGE}__max_energy_range_uj": 1000},
        **{f"{PACKAGE}_colon_0__name": "core", f"{PACKAGE}_colon_0__energy_uj": 5},
        hwmon__hwmon1__name="ina3221",
        hwmon__hwmon1__power1_input=2_000_000,
        hwmon__hwmon1__power1_label="VDD_IN",
        hwmon__hwmon2__energy1_input=7,
    )
    found, reason = meters()
    assert reason == ""
    assert [(meter.name, meter.samples) for meter in found] == [
        ("powercap package-0", False),
        ("hwmon hwmon2 energy1", False),
        ("hwmon ina3221 VDD_IN", True),
    ]


def test_a_counter_wraps_and_power_is_summed_over_time(sensors):
    root = sensors(
        **{f"{PACKAGE}__name": "package-0", f"{PACKAGE}__energy_uj": 900_000, f"{PACKAGE}__max_energy_range_uj": 1_000_000},
        hwmon__hwmon1__name="ina",
        hwmon__hwmon1__power1_input=3_000_000,
    )
    found, _ = meters()
    with metered(found) as told:
        time.sleep(0.05)
        # The kernel never shows an empty file.
        (root / "new").write_text("400000\n")
        (root / "new").replace(root / "powercap/intel-rapl:0/energy_uj")
        time.sleep(0.1)
    # 0.1 J up to where the counter begins again, 0.4 J from there; 3 W all the time.
    assert told["joules"]["powercap package-0"] == pytest.approx(0.5)
    assert told["joules"]["hwmon ina power1"] == pytest.approx(3 * told["seconds"], rel=0.2)


def test_a_sensor_that_goes_away_ends_the_measurement_with_a_sentence(sensors):
    root = sensors(hwmon__hwmon1__power1_input=1)
    found, _ = meters()

    def lose() -> None:
        with metered(found):
            (root / "hwmon/hwmon1/power1_input").unlink()
            time.sleep(0.15)

    with pytest.raises(RunnerError, match="cannot be read any more"):
        lose()


def test_energy_stands_beside_the_streams(model, sensors):
    sensors(hwmon__hwmon1__name="ina", hwmon__hwmon1__power1_input=2_000_000)
    found = throughput_here(model, {}, None, ThroughputPlan(threads=(1,), seconds=0.2, rounds=1))
    (stream,) = found["streams"]
    drawn = stream["energy"]["hwmon ina power1"]
    assert drawn["watts"] == pytest.approx(2, rel=0.2)
    assert drawn["joules_per_image"] == pytest.approx(drawn["watts"] / stream["images_per_second"], rel=0.01)
    assert found["idle_watts"]["hwmon ina power1"] == pytest.approx(2, rel=0.2)


def test_a_request_for_throughput_is_read_strictly(model, tmp_path):
    content = {"schema": 1, "models": [{"name": "a", "path": str(model), "sha256": "0" * 64}], "session": {}}
    file = tmp_path / "request.json"
    file.write_text(json.dumps({**content, "throughput": {"threads": [0, 2], "seconds": 0, "rounds": 0}}))
    with pytest.raises(RunnerError) as caught:
        read_request(file)
    for part in ("throughput.threads: got [0, 2]", "throughput.seconds", "throughput.rounds"):
        assert part in str(caught.value)
    file.write_text(json.dumps({**content, "throughput": {"threads": [1]}}))
    with pytest.raises(RunnerError, match="throughput: expected threads, seconds, rounds"):
        read_request(file)
