"""`edgetune check` on named devices: this machine twice, and one that is not what the bundle was built for."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest

from edgetune.cli.main import main
from edgetune.release.bundle import make_bundle
from edgetune.verify.stage import session_options


@pytest.fixture
def bundle(world, report, measurement, tmp_path):
    def build(profile=world.profile, **options):
        limits = {"top1_drop_points": 1.0, "top1_agreement_percent": 95.0, "golden_max_abs": 0.5}
        absent = ("latency_p90_ms", "size_bytes", "peak_memory_bytes", "map_drop_points", "rmse_increase_percent")
        made = make_bundle(
            folder=tmp_path / "bundle",
            product="colours",
            model=world.int8,
            reference=world.fp32,
            dataset=world.dataset,
            report=report,
            card="card",
            measurement=measurement,
            profile=profile,
            session=session_options(profile) | options,
            limits={"parity_max_abs": 1e-3, **limits, **dict.fromkeys(absent)},
            provenance={},
        )
        return str(made.folder)

    return build


def test_a_bundle_of_more_threads_than_the_device_has_is_measured_as_it_is_and_not_as_on_its_target(bundle, capsys):
    threads = len(os.sched_getaffinity(0)) + 1
    assert main(["check", bundle(intra_op_threads=threads), "--quick", "--device", "local"]) == 0
    shown = capsys.readouterr().out
    assert f"NOT the target, a stand-in for it (threads: asks for {threads}, the device has {threads - 1} hardware" in shown
    assert "edgetune tune lowers that" in shown


def foreign(world):
    processor = world.profile.processor.model_copy(update={"features": ("quantum",)})
    return world.profile.model_copy(update={"processor": processor})


def test_several_devices_have_a_line_each_and_a_matrix(bundle, capsys):
    devices = ["--device", "local", "--device", f"python:{sys.executable}"]
    assert main(["check", bundle(), "--quick", *devices]) == 0
    shown = capsys.readouterr()
    assert re.search(r"local: KEPT, p50 [\d.]+ ms \(quick: \d+ queries\), ", shown.out)
    assert f"python:{sys.executable}: KEPT, p50 " in shown.out
    assert "on 3 images" in shown.out
    assert "bit-equal" in shown.out
    assert "local: measuring int8 on this machine" in shown.err


def test_several_devices_as_json(bundle, capsys):
    devices = ["--device", "local", "--device", f"python:{sys.executable}"]
    assert main(["check", bundle(), "--quick", "--json", *devices]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["devices"]) == {"local", f"python:{sys.executable}"}
    assert [pair["bit_equal"] for pair in found["agreement"]] == [True]


def test_a_device_that_the_bundle_was_not_built_for_is_refused_unless_it_may_stand_in(world, bundle, capsys):
    folder = bundle(foreign(world))
    assert main(["check", folder, "--quick", "--device", "local"]) == 3
    shown = capsys.readouterr()
    assert "is not what the bundle was built for" in shown.err
    assert "processor lacks quantum" in shown.err
    assert "measuring" not in shown.err
    assert main(["check", folder, "--quick", "--device", "local", "--stand-in"]) == 0
    assert "NOT the target" in capsys.readouterr().out
    assert main(["check", folder, "--quick"]) == 0


def test_one_device_that_cannot_be_used_is_said_and_decides_the_exit_code(bundle, tmp_path, capsys):
    absent = tmp_path / "fleet.toml"
    absent.write_text('schema = 1\n[devices]\nhere = "local"\ngone = "ssh://nowhere.invalid"\n')
    assert main(["check", bundle(), "--quick", "--fleet", str(absent)]) == 3
    shown = capsys.readouterr().out
    assert "here: KEPT" in shown
    assert "gone: not measured" in shown
    assert "cannot be resolved" in shown


def test_queries_are_paced_and_streams_are_counted_on_request(bundle, capsys):
    timing = ["--quick", "--streams", "1", "--period-ms", "2", "--min-seconds", "0.2"]
    assert main(["check", bundle(), *timing]) == 0
    out = capsys.readouterr().out.splitlines()
    streams = [line for line in out if "throughput" in line]
    assert [line.split(":")[0] for line in streams] == ["int8 throughput, 1 stream at batch 1"]
    assert all("images/s" in line for line in streams)
    assert any("energy: SKIPPED: " in line or " mJ per image" in line for line in out)
    assert any("one every 2 ms" in line for line in out)


@pytest.mark.parametrize("counts", ["0", "1,x", "", "999"])
def test_streams_are_numbers(bundle, counts, capsys):
    assert main(["check", bundle(), "--streams", counts]) == 2
    assert "expected numbers from 1 to 256 such as 1,2,4" in capsys.readouterr().err
