"""Memory of processes, with and without /proc."""

from __future__ import annotations

import os
import time

import pytest

from greenfilter._supervisor import memory
from greenfilter._supervisor.memory import Memory
from tests.support.wait import wait_until


@pytest.fixture
def ps(tmp_path, monkeypatch):
    """Without /proc, and with a ps of the test's."""
    monkeypatch.setattr(memory, "_from_proc", lambda pid: 0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def write(code):
        (tmp_path / "ps").write_text(f"#!/bin/sh\n{code}\n")
        (tmp_path / "ps").chmod(0o755)

    return write


def test_it_is_read_from_proc():
    assert Memory().read([os.getpid()])[os.getpid()] > 1 << 20


def test_ps_is_asked_once_for_all(ps):
    ps("echo 1 10; echo 2 20")
    memory, found = Memory(), []
    wait_until(lambda: found.append(memory.read([1, 2])) or any(found), 10, "an answer of ps")
    assert found[-1] == {1: 10240, 2: 20480}
    wait_until(lambda: memory._collect(), 10, "the ps that was started next")


def test_a_slow_ps_holds_up_nobody_and_is_given_up(ps, monkeypatch, caplog):
    ps("exec sleep 60")
    memory = Memory()
    start = time.monotonic()
    assert memory.read([1]) == {}
    assert memory.read([1]) == {}
    assert time.monotonic() - start < 5
    monkeypatch.setattr(memory, "_PS_SECONDS", -1.0)
    monkeypatch.setenv("PATH", "/nonexistent")
    memory.read([1])
    assert "memory cannot be read (ps does not answer)" in caplog.text


def test_that_there_is_no_ps_is_said_once(ps, monkeypatch, caplog):
    monkeypatch.setenv("PATH", "/nonexistent")
    memory = Memory()
    memory.read([1])
    memory.read([1])
    assert caplog.text.count("there is no limit") == 1
