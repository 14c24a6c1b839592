"""The demo runs to its end, and notices what is not as expected."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from .conftest import EXAMPLES, load_example

if TYPE_CHECKING:
    import pytest


def test_the_demo_shows_what_each_client_got() -> None:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo.py")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "on both lists             203.0.113.5  " in ended.stdout
    assert "550 5.7.1 203.0.113.5 is listed by zen.example.org" in ended.stdout
    assert "20 x list answers slowly" in ended.stdout
    assert ended.stderr == ""


def test_the_demo_fails_if_a_client_gets_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    demo = load_example("demo")
    demo.CLIENTS = [client._replace(accepted=True) for client in demo.CLIENTS]
    assert demo.main() == 1
    out = capsys.readouterr().out
    assert "NOT AS EXPECTED: on both lists: 550 5.7.1" in out
    assert out.count("NOT AS EXPECTED") == 2


def test_the_demo_of_mail_shows_what_became_of_each() -> None:
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / "demo_mail.py")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "DKIM-Signature: v=1; a=ed25519-sha256" in ended.stdout
    assert "dkim=pass header.d=example.org" in ended.stdout
    assert ended.stdout.count("550 5.7.1 Mail from example.org refused") == 2
    assert ended.stderr == ""


def test_the_demo_of_mail_fails_if_something_else_comes_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    demo = load_example("demo_mail")
    demo.RECORDS["_dmarc.example.org."] = "v=DMARC1; p=none"
    assert demo.main() == 1
    assert capsys.readouterr().out.count("NOT AS EXPECTED") == 2
