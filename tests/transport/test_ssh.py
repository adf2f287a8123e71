"""What ssh refuses, said in words: a real client against a real server."""

from __future__ import annotations

import shutil
import socket
import stat

import pytest

from edgetune.errors import TargetError
from edgetune.transport.address import open_link


def fails(address: str) -> TargetError:
    link = open_link(address)
    with pytest.raises(TargetError) as caught:
        link.run(["true"], deadline_s=30)
    link.close()
    assert "\n" not in caught.value.message
    assert caught.value.remedy
    return caught.value


@pytest.fixture
def config(over_ssh, tmp_path, monkeypatch):
    """Return a function that writes a changed configuration and has edgetune read it."""

    def change(old: str, new: str) -> None:
        text = over_ssh.config.read_text()
        assert old in text
        (tmp_path / "ssh_config").write_text(text.replace(old, new))
        monkeypatch.setenv("EDGETUNE_SSH_CONFIG", str(tmp_path / "ssh_config"))

    return change


def known_hosts(over_ssh) -> str:
    return str(over_ssh.config.with_name("known_hosts"))


def test_an_unknown_host_key_is_refused_with_how_to_get_to_know_it(over_ssh, config):
    config(known_hosts(over_ssh), "/dev/null")
    fault = fails(over_ssh.address())
    assert "is not known here" in fault.message
    assert f"ssh -p {over_ssh.port} {over_ssh.user}@127.0.0.1" in fault.remedy


def test_a_configuration_that_accepts_any_key_is_overruled(over_ssh, config):
    config(f"UserKnownHostsFile {known_hosts(over_ssh)}", "UserKnownHostsFile /dev/null\n  StrictHostKeyChecking no")
    assert "is not known here" in fails(over_ssh.address()).message


def test_a_changed_host_key_is_refused(over_ssh, config, tmp_path):
    other = over_ssh.config.with_name("key.pub").read_text()
    (tmp_path / "changed").write_text(f"edgetune-test {other}")
    config(known_hosts(over_ssh), str(tmp_path / "changed"))
    fault = fails(over_ssh.address())
    assert "not the one that is known" in fault.message
    assert "ssh-keygen -R" in fault.remedy


def test_a_key_that_does_not_fit_is_not_followed_by_a_question(over_ssh, config):
    config(str(over_ssh.config.with_name("key")), str(over_ssh.config.with_name("host_key")))
    fault = fails(over_ssh.address())
    assert "does not let this user in" in fault.message
    assert "ssh-copy-id" in fault.remedy


def test_nobody_listens(over_ssh):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        assert "nothing listens" in fails(over_ssh.address(port=one.getsockname()[1])).message


def test_a_name_that_is_none(over_ssh):
    assert "cannot be resolved" in fails("ssh://nowhere.invalid").message


def test_a_configuration_that_ssh_cannot_read(over_ssh, monkeypatch, tmp_path):
    (tmp_path / "bad").write_text("Host *\n  NoSuchThing yes\n")
    monkeypatch.setenv("EDGETUNE_SSH_CONFIG", str(tmp_path / "bad"))
    assert "NoSuchThing" in str(fails(over_ssh.address())) or "configuration" in str(fails(over_ssh.address()))
    monkeypatch.setenv("EDGETUNE_SSH_CONFIG", str(tmp_path / "missing"))
    assert "configuration" in fails(over_ssh.address()).message


def test_a_board_without_that_python(over_ssh):
    fault = fails(over_ssh.address(python="/opt/no/python3"))
    assert "there is no /opt/no/python3" in fault.message
    assert "ssh://" in fault.remedy


def test_a_python_that_is_too_old_is_told_by_its_version(over_ssh, tmp_path):
    # A real interpreter, which takes itself for an old one.
    real = shutil.which("python3")
    old = tmp_path / "python3"
    old.write_text(f'#!/bin/sh\nshift 3\nexec {real} -c \'import sys; sys.version_info = (3, 6, 9, "final", 0)\n\'"$1"\n')
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    fault = fails(over_ssh.address(python=str(old)))
    assert "is Python 3.6.9; expected 3.8 or newer" in fault.message


def test_a_shell_that_prints_before_the_agent_greets_does_no_harm(over_ssh, tmp_path):
    real = shutil.which("python3")
    chatty = tmp_path / "python3"
    chatty.write_text(f'#!/bin/sh\necho "Welcome to the board!"\necho "last login: today" >&2\nexec {real} "$@"\n')
    chatty.chmod(chatty.stat().st_mode | stat.S_IXUSR)
    link = open_link(over_ssh.address(python=str(chatty)))
    assert link.run(["echo", "hi"], deadline_s=30).stdout == b"hi\n"
    link.close()


def test_a_machine_without_ssh_is_told_what_to_install(over_ssh, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no program ssh" in fails(over_ssh.address()).message
