"""Whose signature counts: OpenSSH's traps, and what a host may send at all."""

from __future__ import annotations

import io
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgetune.device.exitcodes import ExitCode, RunnerError
from edgetune.device.install import signature as module
from edgetune.device.install.receive import begin, read_head
from edgetune.device.install.settings import read_settings
from edgetune.device.install.setup import set_up
from edgetune.device.install.signature import MAX_SIGNATURE_BYTES, NAMESPACE, check_signature, check_signers

CONTENT = b'{"schema": 1}'


@pytest.fixture
def signers(publisher, tmp_path: Path) -> Path:
    path = tmp_path / "allowed_signers"
    path.write_bytes(publisher.signers())
    path.chmod(0o644)
    return path


def test_an_allowed_signer_counts(publisher, signers):
    check_signature(CONTENT, publisher.sign(CONTENT), "colours", signers, None)


@pytest.mark.parametrize("case", ["content", "key", "namespace", "product", "revoked", "none", "junk", "oversized"])
def test_anything_else_does_not(publisher, signers, tmp_path, case):
    given = {"content": CONTENT, "signature": publisher.sign(CONTENT), "product": "colours", "revoked": None}
    if case == "content":
        given["content"] += b" "
    elif case == "key":
        given["signature"] = publisher.sign(CONTENT, "stranger")
    elif case == "namespace":
        given["signature"] = publisher.sign(CONTENT, namespace="file")
    elif case == "product":
        given["product"] = "other"
    elif case == "revoked":
        given["revoked"] = tmp_path / "revoked"
        given["revoked"].write_text(publisher.public() + "\n")
    elif case == "none":
        given["signature"] = b""
    elif case == "junk":
        given["signature"] += b"x"
    else:
        given["signature"] += b"\n" * MAX_SIGNATURE_BYTES
    with pytest.raises(RunnerError) as caught:
        check_signature(given["content"], given["signature"], given["product"], signers, given["revoked"])
    assert caught.value.code == ExitCode.ARTEFACT


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("release@colours {key}", "got none"),
        ('release@colours namespaces="file" {key}', "as the only option"),
        (f'* namespaces="{NAMESPACE}" {{key}}', "wildcard"),
        (f'release@* namespaces="{NAMESPACE}" {{key}}', "wildcard"),
        (f'release@colours namespaces="{NAMESPACE}",valid-after="20200101" {{key}}', "as the only option"),
        (f'release@colours cert-authority,namespaces="{NAMESPACE}" {{key}}', "as the only option"),
        ("nonsense", "expected: release@PRODUCT"),
        ("# nobody", "names nobody"),
    ],
)
def test_signers_that_openssh_takes_and_we_do_not(publisher, signers, line, words):
    signers.write_text(line.format(key=publisher.public()) + "\n")
    with pytest.raises(RunnerError, match=words) as caught:
        check_signers(signers)
    assert caught.value.code == ExitCode.ARTEFACT


@pytest.mark.parametrize("mode", [0o666, 0o664])
def test_signers_that_others_may_write_are_not_trusted(signers, mode):
    signers.chmod(mode)
    with pytest.raises(RunnerError, match="can be changed by others"):
        check_signers(signers)


def test_signers_in_a_folder_that_others_may_write_or_behind_a_link_are_not_trusted(signers, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(signers)
    with pytest.raises(RunnerError, match="cannot be read"):
        check_signers(link)
    tmp_path.chmod(0o777)
    with pytest.raises(RunnerError, match="can be changed by others"):
        check_signers(signers)
    tmp_path.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_signers_of_another_owner_are_not_trusted(signers):
    os.chown(signers, 12345, 12345)
    with pytest.raises(RunnerError, match="owner 12345"):
        check_signers(signers)


def test_signers_that_cannot_be_trusted_do_not_replace_those_that_can(place, publisher):
    before = place.signers.read_bytes()
    with pytest.raises(RunnerError, match="wildcard"):
        set_up(place, read_settings(place), before.replace(b"release@colours", b"*"), None)
    assert place.signers.read_bytes() == before


def test_a_revocation_file_that_is_empty_or_gone_is_not_taken_for_nobody(publisher, signers, tmp_path):
    revoked = tmp_path / "revoked"
    for words in ("cannot be read", "is empty"):
        with pytest.raises(RunnerError, match=words):
            check_signature(CONTENT, publisher.sign(CONTENT), "colours", signers, revoked)
        revoked.write_bytes(b"")


def test_without_ssh_keygen_it_says_what_to_do(publisher, signers, monkeypatch, tmp_path):
    signature = publisher.sign(CONTENT)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunnerError, match="--hash-only") as caught:
        check_signature(CONTENT, signature, "colours", signers, None)
    assert caught.value.code == ExitCode.TARGET


def test_an_ssh_keygen_that_hangs_is_given_up(publisher, signers, monkeypatch, tmp_path):
    signature = publisher.sign(CONTENT)
    (tmp_path / "ssh-keygen").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (tmp_path / "ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "DEADLINE_S", 0.2)
    with pytest.raises(RunnerError, match="did not end"):
        check_signature(CONTENT, signature, "colours", signers, None)


def test_a_release_signed_before_its_key_was_revoked_is_refused_from_then_on(place, release, install, hand, publisher):
    old = install(release(1))
    set_up(place, replace(read_settings(place), revocation=True), None, (publisher.public() + "\n").encode())
    with pytest.raises(RunnerError, match="not signed by an allowed signer"):
        hand.bring(place, release(2))
    assert place.linked() == old
    set_up(place, replace(read_settings(place), revocation=False), None, None)
    install(release(3))


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "expected a manifest"),
        (b"x y\n", "expected a manifest"),
        (b"99999999 5\n", "expected a manifest"),
        (b"5 99999\n", "expected a manifest"),
        (b"5 5\nabc", "cut short"),
        (b"1 1\nabc", "cut short"),
    ],
)
def test_what_a_host_sends_is_capped_before_it_is_read(sent, words):
    with pytest.raises(RunnerError, match=words):
        read_head(io.BytesIO(sent))


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/passwd",
        "a//b",
        "a/./b",
        "C:/x",
        "a\\b",
        "MODEL.ONNX",
        "manifest.json",
        "model.onnx/x",
        "n" * 300,
        "a\0b",
    ],
)
def test_names_that_lead_out_collide_or_are_too_long_are_refused_though_signed(place, release, publisher, hand, name):
    folder = release(1)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["labels.json"]
    content = json.dumps(manifest).encode()
    with pytest.raises(RunnerError) as caught:
        begin(place, content, publisher.sign(content), hand.shipper)
    assert caught.value.code == ExitCode.ARTEFACT
    assert list(place.incoming.iterdir()) == []


@pytest.mark.parametrize("case", ["many", "large", "duplicate", "deep", "huge"])
def test_manifests_that_are_too_much_are_refused_though_signed(place, release, publisher, hand, case):
    folder = release(1)
    manifest = json.loads((folder / "manifest.json").read_text())
    content = b""
    if case == "many":
        manifest["files"] |= {f"f{number}": manifest["files"]["labels.json"] for number in range(4097)}
    elif case == "large":
        manifest["files"]["model.onnx"]["size_bytes"] = 1 << 40
    elif case == "duplicate":
        content = (folder / "manifest.json").read_bytes().replace(b'{"schema": 1', b'{"schema": 1, "schema": 1', 1)
    elif case == "deep":
        content = b"[" * 100_000
    else:
        content = b" " * ((8 << 20) + 1)
    content = content or json.dumps(manifest).encode()
    with pytest.raises(RunnerError) as caught:
        begin(place, content, publisher.sign(content), hand.shipper)
    assert caught.value.code == ExitCode.ARTEFACT
    assert list(place.incoming.iterdir()) == []


def test_the_public_half_of_what_signs_is_enough_for_an_agent(publisher, tmp_path, signers):
    agent = subprocess.run(["ssh-agent", "-a", tmp_path / "agent", "-s"], capture_output=True, text=True, check=True).stdout
    pid = agent.split("SSH_AGENT_PID=")[1].split(";")[0]
    environment = {**os.environ, "SSH_AUTH_SOCK": str(tmp_path / "agent"), "SSH_AGENT_PID": pid}
    try:
        subprocess.run(["ssh-add", "-q", publisher.key()], env=environment, check=True)
        public = tmp_path / "only.pub"
        public.write_text(publisher.public())
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", public, "-n", NAMESPACE]
        done = subprocess.run(command, input=CONTENT, capture_output=True, env=environment, check=True)
        check_signature(CONTENT, done.stdout, "colours", signers, None)
    finally:
        subprocess.run(["ssh-agent", "-k"], env=environment, capture_output=True, check=True)
