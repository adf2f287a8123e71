from __future__ import annotations

import sys

import pytest

from edgetune.errors import UsageError
from edgetune.transport.address import open_link
from edgetune.transport.local import LocalLink
from edgetune.transport.ssh import SshLink


def test_local_is_this_interpreter():
    link = open_link("local")
    assert isinstance(link, LocalLink)
    assert link.python == sys.executable
    assert link.here


def test_another_interpreter_is_named_by_path_or_by_name(tmp_path, monkeypatch):
    other = tmp_path / "python9"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert open_link(f"python:{other}").python == str(other)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_link("python:python9").python == str(other)


@pytest.mark.parametrize(
    ("address", "ends", "python"),
    [
        ("ssh://board", ["-T", "--", "board", "true"], "python3"),
        ("ssh://Alias/", ["-T", "--", "Alias", "true"], "python3"),
        ("ssh://pi@10.0.0.7:2222", ["-p", "2222", "-l", "pi", "-T", "--", "10.0.0.7", "true"], "python3"),
        ("ssh://b/opt/my%20venv/bin/python", ["-T", "--", "b", "true"], "/opt/my venv/bin/python"),
        ("ssh://[fe80::1%eth0]:22", ["-p", "22", "-T", "--", "fe80::1%eth0", "true"], "python3"),
    ],
)
def test_a_board_is_a_url(address, ends, python):
    link = open_link(address)
    assert isinstance(link, SshLink)
    command = link.command("true")
    assert command[0] == "ssh"
    assert command[-len(ends) :] == ends
    assert link.python == python
    assert not link.here


@pytest.mark.parametrize(
    "address",
    [
        "",
        "board",
        "ssh://",
        "ssh://:22",
        "ssh://pi@",
        "ssh://b:0",
        "ssh://b:70000",
        "ssh://b:x",
        "ssh://b?x=1",
        "ssh://-oProxyCommand=reboot",
        "ssh://-oProxyCommand=reboot@board",
        "ssh://a$(reboot)",
        "python:",
        "python:/nowhere/python",
        "telnet://board",
    ],
)
def test_what_is_no_address_is_refused_with_what_is(address):
    with pytest.raises(UsageError) as caught:
        open_link(address)
    assert "expected" in str(caught.value) or "ssh://" in str(caught.value)


def test_a_password_is_refused_and_not_repeated():
    with pytest.raises(UsageError) as caught:
        open_link("ssh://pi:raspberry@board")
    assert "raspberry" not in str(caught.value)
    assert "key" in caught.value.remedy
