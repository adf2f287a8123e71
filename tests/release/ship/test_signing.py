"""Signing a bundle, in place or as a copy, and verifying it on a host."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from edgetune.cli.main import main
from edgetune.errors import ArtefactError, TargetError, UsageError
from edgetune.release.load import load_bundle
from edgetune.release.signing import sign_bundle, verify_bundle


@pytest.fixture
def bundle(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def signers(publisher, tmp_path: Path) -> Path:
    path = tmp_path / "allowed_signers"
    path.write_bytes(publisher.signers())
    path.chmod(0o644)
    return path


def test_signed_in_place_it_verifies_and_is_still_a_bundle(bundle, publisher, signers):
    signed = sign_bundle(bundle, publisher.key(), counter=3)
    assert (signed.product, signed.counter) == ("colours", 3)
    assert signed.key.startswith("ssh-ed25519 SHA256:")
    assert load_bundle(bundle)["counter"] == 3
    assert verify_bundle(bundle, signers, product="colours") == signed


def test_signed_again_no_stale_signature_stays(bundle, publisher, signers):
    first = sign_bundle(bundle, publisher.key(), counter=3)
    second = sign_bundle(bundle, publisher.key(), counter=4, product="other.name")
    assert first.manifest_sha256 != second.manifest_sha256
    signers.write_bytes(publisher.signers(product="other.name"))
    assert verify_bundle(bundle, signers, product="other.name").counter == 4
    sign_bundle(bundle, None, counter=5)
    assert not (bundle / "manifest.json.sig").exists()


def test_a_copy_leaves_the_bundle_as_it_was(bundle, publisher, signers, tmp_path):
    before = (bundle / "manifest.json").read_bytes()
    sign_bundle(bundle, publisher.key(), counter=1, output=tmp_path / "copy")
    assert (bundle / "manifest.json").read_bytes() == before
    assert verify_bundle(tmp_path / "copy", signers, product="colours").counter == 1
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(UsageError, match="in the way"):
        sign_bundle(bundle, publisher.key(), counter=1, output=tmp_path / "mine")


@pytest.mark.parametrize("counter", [0, -1, 10**16])
def test_a_counter_that_cannot_be_is_refused_and_nothing_changes(bundle, publisher, counter):
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match="counter: got"):
        sign_bundle(bundle, publisher.key(), counter=counter)
    with pytest.raises(UsageError, match="product: got"):
        sign_bundle(bundle, publisher.key(), counter=1, product="../x")
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_key_that_is_none_or_does_not_sign_is_said_and_nothing_changes(bundle, tmp_path, publisher, capfd):
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match="is no key"):
        sign_bundle(bundle, tmp_path / "none", counter=1)
    (tmp_path / "nonsense").write_text("nonsense")
    (tmp_path / "nonsense").chmod(0o600)
    with pytest.raises(TargetError, match="did not sign"):
        sign_bundle(bundle, tmp_path / "nonsense", counter=1)
    assert capfd.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("case", ["unsigned", "manifest", "file", "stranger", "product", "revoked"])
def test_what_is_not_as_it_was_signed_does_not_verify(bundle, publisher, signers, tmp_path, case, capsys):
    sign_bundle(bundle, publisher.key("stranger" if case == "stranger" else "release"), counter=1)
    revoked = tmp_path / "revoked"
    revoked.write_text(publisher.public("release" if case == "revoked" else "other") + "\n")
    if case == "unsigned":
        (bundle / "manifest.json.sig").unlink()
    elif case == "manifest":
        manifest = json.loads((bundle / "manifest.json").read_text())
        (bundle / "manifest.json").write_text(json.dumps({**manifest, "counter": 99}))
    elif case == "file":
        (bundle / "labels.json").write_text("[]")
    product = "other" if case == "product" else "colours"
    with pytest.raises(ArtefactError):
        verify_bundle(bundle, signers, product=product, revoked=revoked)
    code = main(["verify", str(bundle), "--signers", str(signers), "--product", product, "--revoked", str(revoked)])
    out, err = capsys.readouterr()
    assert (code, out) == (4, "")
    assert "Traceback" not in err


def test_a_signer_that_signs_something_else_is_found_out(bundle, publisher, tmp_path, monkeypatch):
    """A wrapper that keeps an old signature, as ssh-keygen does when it is given a file that has one."""
    stale = tmp_path / "stale"
    stale.write_bytes(publisher.sign(b"something else"))
    tool = tmp_path / "ssh-keygen"
    real = shutil.which("ssh-keygen")
    tool.write_text(f'#!/bin/sh\ncase " $* " in *" sign "*) cat {stale};; *) exec {real} "$@";; esac\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin")
    with pytest.raises(TargetError, match="does not verify"):
        sign_bundle(bundle, publisher.key(), counter=1)
    assert not (bundle / "manifest.json.sig").exists()


def test_the_command_wants_a_key_or_no_signature_not_both(bundle, publisher, capsys):
    assert main(["sign", str(bundle), "--counter", "1"]) == 2
    assert main(["sign", str(bundle), "--counter", "1", "--unsigned", "--key", str(publisher.key())]) == 2
    assert main(["sign", str(bundle), "--counter", "1", "--unsigned"]) == 0
    assert "unsigned" in capsys.readouterr().out


def test_a_runs_own_bundle_is_signed_as_a_copy(bundle, publisher, tmp_path, capsys):
    (tmp_path / "recipe.toml").touch()
    for named in (tmp_path, bundle):
        assert main(["sign", str(named), "--counter", "1", "--key", str(publisher.key())]) == 2
        assert "--output" in capsys.readouterr().err
    assert (
        main(["sign", str(tmp_path), "--counter", "1", "--key", str(publisher.key()), "--output", str(tmp_path / "new")]) == 0
    )
    assert load_bundle(tmp_path / "new")["counter"] == 1
