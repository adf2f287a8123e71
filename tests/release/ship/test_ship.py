"""A bundle shipped over a real link to a real runner: what goes in, what is refused, what the device does by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import edgetune
from edgetune.cli.main import main
from edgetune.device.digest import check_bundle
from edgetune.device.install.place import Place
from edgetune.device.install.state import COMMITTED, ROLLED_BACK, TRYING, read_state
from edgetune.errors import ArtefactError, Busy, EdgetuneError, TakenBack, TargetError, UsageError
from edgetune.release.ship.device import Device
from edgetune.release.ship.host import alone_at

PATIENCE_S = 60.0


def place_of(device: Device) -> Place:
    return Place(Path(device.folder))


def answering(device: Device) -> str | None:
    """Return what another program finds there, proven to be what was built."""
    place = place_of(device)
    if place.linked() is not None:
        check_bundle(place.current)
    return place.linked()


def soon(holds: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_release_goes_in_with_golden_images_timer_and_confirmation(device, release):
    """Three times real golden images; the commands' test below goes the same way."""
    folder = release(2)
    one, two = device.ship(release(1)), device.ship(folder)
    assert (one.sent, one.was_there) == (9, False)
    assert answering(device) == two.release == read_state(place_of(device)).current
    assert device.ship(folder).was_there
    status = device.status()
    assert (status["state"], status["intact"], status["previous"]) == (COMMITTED, True, [one.release])
    assert device.roll_back()["release"] == one.release == answering(device)
    assert json.loads(device.log(1)[0])["event"] == "committed"


def spoilt(case: str, release, publisher) -> Path:
    """Return release 5 with something wrong."""
    folder = release(5, **({"counter": 1, "extra": 1} if case == "downgraded" else {}))
    manifest, signature = folder / "manifest.json", folder / "manifest.json.sig"
    content = manifest.read_bytes()
    if case == "tampered":
        manifest.write_bytes(content.replace(b'"cat"', b'"cow"', 1))
    elif case == "truncated":
        manifest.write_bytes(content[:-20])
    elif case == "unsigned":
        signature.unlink()
    elif case == "wrongly signed":
        signature.write_bytes(publisher.sign(content, "stranger"))
    elif case == "traversing":
        table = json.loads(content)
        table["files"]["../../evil"] = table["files"]["labels.json"]
        manifest.write_text(json.dumps(table))
        signature.write_bytes(publisher.sign(manifest.read_bytes()))
    elif case == "oversized":
        signature.write_bytes(signature.read_bytes() + b"\n" * 20_000)
    elif case == "exchanged":
        (folder / "model.onnx").write_bytes(b"x" * (folder / "model.onnx").stat().st_size)
    return folder


def test_what_is_spoilt_is_refused_by_the_device_and_the_old_release_answers(device, release, publisher):
    old = device.ship(release(1)).release
    cases = [
        "tampered",
        "truncated",
        "unsigned",
        "wrongly signed",
        "traversing",
        "oversized",
        "downgraded",
        "exchanged",
        "revoked",
    ]
    for case in cases:
        if case == "revoked":
            key = (publisher.public() + "\n").encode()
            device.set_up({"product": "colours", "allow_volatile": True, "revocation": True}, None, key)
        folder = spoilt(case, release, publisher)
        with pytest.raises(ArtefactError):
            device.ship(folder)
        assert (answering(device), device.status()["current"]) == (old, old), case
        folder.rename(folder.with_name(f"spoilt-{case}"))
    assert not list(Path(device.folder).rglob("evil"))


@pytest.mark.slow
def test_golden_images_that_differ_and_a_bad_health_check_are_taken_back(device, release, again):
    """Four releases through real golden images; the room of the device tests the same without a link."""
    import numpy as np

    old = device.ship(release(1)).release
    folder = release(2)
    np.save(folder / "golden/logits.npy", np.load(folder / "golden/logits.npy") + 1)
    with pytest.raises(TakenBack, match="golden logits: off by up to 1"):
        device.ship(again(folder))
    device.set_up({"product": "colours", "allow_volatile": True, "health": ["sh", "-c", "echo bad >&2; exit 1"]}, None, None)
    with pytest.raises(TargetError, match=f"was taken back: .*bad; current is {old} again"):
        device.ship(release(3))
    assert answering(device) == old


def test_a_host_that_vanishes_after_the_switch_is_noticed_by_the_device(device, release, publisher, tmp_path):
    old = device.ship(release(1)).release
    settings = {"product": "colours", "allow_volatile": True, "health": ["sleep", "30"]}
    device.set_up(settings, None, None)
    command = [sys.executable, "-m", "edgetune", "ship", str(release(2)), "--device", "local", "--root", str(tmp_path / "root")]
    environment = {**os.environ, "PYTHONPATH": str(Path(edgetune.__file__).parents[1])}
    host = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    soon(lambda: place_of(device).linked() != old)
    host.send_signal(signal.SIGKILL)
    host.wait()
    soon(lambda: read_state(place_of(device)).state == ROLLED_BACK)
    assert answering(device) == old


def test_a_release_that_nobody_confirms_is_taken_back(device, release, link, monkeypatch):
    old = device.ship(release(1)).release
    device.set_up({"product": "colours", "allow_volatile": True, "confirm_s": 0.5}, None, None)
    asked = device._ask

    def vanish(step: str, *arguments: str, **options):
        if step == "confirm":
            link.close()
            raise TargetError("the link broke")
        return asked(step, *arguments, **options)

    monkeypatch.setattr(device, "_ask", vanish)
    with pytest.raises(TargetError, match="the link broke"):
        device.ship(release(2))
    assert read_state(place_of(device)).state == TRYING
    soon(lambda: read_state(place_of(device)).state == ROLLED_BACK)
    assert "not confirmed within 0.5 s" in read_state(place_of(device)).reason
    assert answering(device) == old


@pytest.mark.slow
def test_an_upload_that_breaks_is_gone_on_from(device, release, link, monkeypatch):
    """Real golden images once more; test_over_ssh.py cuts a real link."""
    put, sent = link.put, []

    def break_at_the_third(source: Path, destination: str, **options) -> None:
        if len(sent) == 2:
            sent.append("")
            raise TargetError("the link broke")
        sent.append(source.name)
        put(source, destination, **options)

    monkeypatch.setattr(link, "put", break_at_the_third)
    folder = release(1)
    with pytest.raises(TargetError, match="the link broke"):
        device.ship(folder)
    assert device.ship(folder).sent == 7
    assert len(sent) == 10


def test_a_device_may_not_ask_for_other_files_of_this_host(device, release, monkeypatch):
    asked = device._ask

    def greedy(step: str, *arguments: str, **options):
        answer = asked(step, *arguments, **options)
        return {**answer, "needed": [{"name": "../../../etc/passwd", "size_bytes": 1}]} if step == "begin" else answer

    monkeypatch.setattr(device, "_ask", greedy)
    with pytest.raises(TargetError, match="asks for files that are not the bundle's"):
        device.ship(release(1))


def test_two_ships_of_one_host_at_once_are_one_and_a_refusal(device, release, link):
    with alone_at(link.describe(), device.folder), pytest.raises(Busy):
        device.ship(release(1))


def test_a_place_that_was_not_set_up_says_so(link, release, tmp_path):
    with pytest.raises(UsageError, match="edgetune ship setup"):
        Device(link, "colours", str(tmp_path / "nowhere")).ship(release(1))


@pytest.mark.parametrize(("product", "root"), [("../x", "/srv"), ("colours", "srv"), ("colours", "/srv/../etc"), ("", "/srv")])
def test_a_place_that_cannot_be_is_refused(link, product, root):
    with pytest.raises(UsageError):
        Device(link, product, root)


def test_the_commands_from_key_to_rollback(built, publisher, tmp_path, capsys):
    signers, root = tmp_path / "allowed_signers", tmp_path / "root"
    signers.write_bytes(publisher.signers())
    there = ["--device", "local", "--root", str(root)]
    product = ["--product", "colours"]

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in arguments])
        return (code, *capsys.readouterr())

    assert run("ship", "status", *there, *product)[0] == 2
    setup = run("ship", "setup", *there, *product, "--signers", signers, "--allow-volatile")
    assert setup == (0, "local: is set up\n", "")
    for counter in (1, 2):
        release = tmp_path / f"signed-{counter}"
        code, out, _ = run("sign", built, "--key", publisher.key(), "--counter", str(counter), "--output", release)
        assert (code, "release" in out) == (0, True)
        code, out, _ = run("verify", release, "--signers", signers, *product)
        assert (code, out.endswith("all files are as signed\n")) == (0, True)
        code, out, _ = run("ship", release, *there)
        assert (code, out.startswith(f"local: {counter}-"), out.endswith(" is committed\n")) == (0, True, True)
    code, out, err = run("ship", "status", *there, *product)
    assert (code, err) == (0, "")
    assert out.startswith("local: 2-")
    code, out, _ = run("ship", "status", *there, *product, "--json")
    assert json.loads(out)["highest_counter"] == 2
    code, out, _ = run("ship", "rollback", *there, *product)
    assert (code, out.startswith("local: 1-")) == (0, True)
    assert run("ship", release, *there)[0] == 4
    assert run("ship", tmp_path / "nothing", *there)[0] == 2
    assert run("ship", release)[0] == 2
    assert run("ship", built, *there)[0] == 4
    assert '"committed"' in run("ship", "log", *there, *product)[1]


def test_errors_of_the_device_keep_their_kind(device, release):
    with pytest.raises(EdgetuneError) as caught:
        device.roll_back("9-000000000000")
    assert caught.value.exit_code == 2
