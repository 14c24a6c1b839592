from __future__ import annotations

import pytest

from greenfilter._smtpd.wire import Wire, decode, parse_version, vis


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        # As recorded.
        ("alice", "alice"),
        ("two words", r"two\040words"),
        ("back\\slash", r"back\\slash"),
        ("x\nreport", r"x\^Jreport"),
        ("no|body", "no|body"),
        # As vis(3) has it.
        ("\t\x7f", r"\^I\^?"),
        ("é", r"\M-C\M-)"),
        ("\udca0\udc81", r"\240\M^A"),
    ],
)
def test_user_names_are_encoded_as_vis_does(name, encoded):
    assert vis(name, (0, 7)) == encoded


def test_a_cr_in_a_user_name_passes_before_0_7():
    assert vis("a\rb", (0, 6)) == "a\rb"
    assert vis("a\rb", (0, 7)) == r"a\^Mb"


def test_requests_have_the_layout_of_smtpd():
    wire = Wire((0, 7))
    head = b"filter|0.7|1795333857.855262|smtp-in|"
    assert wire.request(1795333857.855262, "data", "5", "7", ("",)) == head + b"data|5|7|"
    assert wire.data_line(1795333857.855262, "5", "7", b"a|\xff\r") == (
        head + b"data-line|5|7|a|\xff\r"
    )


def test_bytes_that_are_not_utf_8_survive():
    line = b"report|0.6|1.000000|smtp-in|protocol-client|5|HELO \xe9\xc3\xa9"
    assert Wire((0, 6)).report(1.0, "smtp-in", "protocol-client", "5", (decode(line[46:]),)) == line


@pytest.mark.parametrize(
    ("version", "fields"),
    [((0, 5), b"m|a@b|ok"), ((0, 6), b"m|ok|a@b"), ((0, 7), b"m|ok|a@b")],
)
def test_tx_mail_and_tx_rcpt_changed_with_0_6(version, fields):
    for event in ("tx-mail", "tx-rcpt"):
        line = Wire(version).report(1.0, "smtp-in", event, "5", ("m", "ok", "a@b"))
        assert line.endswith(b"|5|" + fields)


def test_config_lines_follow_the_version():
    def keys(version):
        lines = Wire(version).config(("smtp-in", "smtp-out"), 300, "mx.example.org")
        return [line.split(b"|")[1].decode() for line in lines]

    middle = ["smtp-session-timeout", "subsystem", "subsystem"]
    assert keys((0, 5)) == ["smtpd-version", *middle, "ready"]
    assert keys((0, 6)) == ["smtpd-version", *middle, "admd", "ready"]
    assert keys((0, 7)) == ["smtpd-version", "protocol", *middle, "admd", "ready"]


def test_versions_are_0_4_to_0_7():
    assert [parse_version(f"0.{minor}") for minor in range(4, 8)] == [(0, n) for n in range(4, 8)]
    for text in ("0.3", "0.8", "7", "", "0.70"):
        with pytest.raises(ValueError, match="not one of"):
            parse_version(text)
