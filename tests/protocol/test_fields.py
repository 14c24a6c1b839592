"""Fields: addresses, vis(3), versions, and the orders that changed between versions."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from greenfilter.errors import RemoteProtocolError
from greenfilter.protocol import EVENTS, NEWEST, PHASES, Address, Status
from greenfilter.protocol._fields import parse_parameter, parse_report, text, unvis, version_of

V4, V6 = IPv4Address("192.0.2.10"), IPv6Address("2001:db8::1")
VERSIONS = [(0, 4), (0, 5), (0, 6), (0, 7)]


@pytest.mark.parametrize(
    ("wire", "ip", "port", "path", "shown"),
    [
        ("192.0.2.10", V4, None, None, "192.0.2.10"),
        ("192.0.2.10:35437", V4, 35437, None, "192.0.2.10"),
        ("[2001:db8::1]", V6, None, None, "2001:db8::1"),
        ("[2001:db8::1]:25", V6, 25, None, "2001:db8::1"),
        ("2001:db8::1", V6, None, None, "2001:db8::1"),
        ("[IPv6:2001:db8::1]", V6, None, None, "2001:db8::1"),
        ("[::1]:43008", IPv6Address("::1"), 43008, None, "::1"),
        ("unix:/var/run/smtpd.sock", None, None, "/var/run/smtpd.sock", "/var/run/smtpd.sock"),
        ("unix:/run/a:25", None, None, "/run/a:25", "/run/a:25"),
        ("local", None, None, None, "local"),
    ],
)
def test_address_knows_every_form_that_smtpd_writes(wire, ip, port, path, shown):
    address = Address(wire)
    assert (address.ip, address.port, address.path, str(address)) == (ip, port, path, shown)


@pytest.mark.parametrize("wire", ["", ":", "[", "[]", "[]:", "[x]:y", "a:b:c", "unix:", "²:²"])
def test_address_of_nonsense_has_neither_ip_nor_port(wire):
    address = Address(wire)
    assert (address.ip, address.port) == (None, None)
    assert isinstance(str(address), str)


def test_addresses_compare_by_what_smtpd_wrote():
    assert Address("192.0.2.1:25") == Address("192.0.2.1:25")
    assert Address("192.0.2.1:25") != Address("192.0.2.1:26")
    assert len({Address("local"), Address("local")}) == 1
    assert repr(Address("local")) == "Address('local')"


@pytest.mark.parametrize(
    ("raw", "decoded"),
    [
        (rb"alice", "alice"),
        (rb"two\040words", "two words"),
        (rb"back\\slash", "back\\slash"),
        (rb"x\^Jreport|0.7", "x\nreport|0.7"),
        (rb"\^?", "\x7f"),
        (rb"\n\r\t\s\0\a\b\v\f", "\n\r\t \0\a\b\v\f"),
        (rb"\M-C\M-)", "é"),
        (rb"\303\251", "é"),
        (rb"\M^?", "\udcff"),
        (rb"\M^A", "\udc81"),
        (rb"\777", "\udcff"),
        (rb"\\040", "\\040"),
        (b"\\", "\\"),
        (rb"\q", "\\q"),
        (b"raw \xff and \xc3\xa9", "raw \udcff and é"),
    ],
)
def test_user_names_are_decoded_from_vis(raw, decoded):
    assert unvis(raw) == decoded


def test_text_that_is_not_utf8_survives():
    assert text(b"\xff\xfe").encode("utf-8", "surrogateescape") == b"\xff\xfe"


@pytest.mark.parametrize(
    ("raw", "version"),
    [(b"0.4", (0, 4)), (b"0.7", (0, 7)), (b"0.10", (0, 10)), (b"1.0", (1, 0))],
)
def test_version_is_read_as_two_numbers(raw, version):
    assert version_of(raw) == version


@pytest.mark.parametrize("raw", [b"", b"7", b".", b"0.", b"x.y", b"-1.7", b"0.7.1", b"9" * 99])
def test_what_is_no_version_counts_as_the_newest(raw):
    assert version_of(raw) == NEWEST


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("event", ["tx_mail", "tx_rcpt"])
@pytest.mark.parametrize("address", [b"a@example.org", b"", b"a|b@example.org", b"ok", b"|"])
def test_results_of_mail_and_rcpt_stood_after_the_address_before_0_6(version, event, address):
    rest = b"01234567|ok|" + address if version >= (0, 6) else b"01234567|" + address + b"|ok"
    values = parse_report(EVENTS[event], version, rest)
    assert values == ["01234567", Status.OK, address.decode()]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("user", [b"alice", b"a|b", rb"two\040words", b"pass", b"|"])
def test_result_of_auth_stood_after_the_user_name_before_0_7(version, user):
    rest = b"pass|" + user if version >= (0, 7) else user + b"|pass"
    assert parse_report(EVENTS["link_auth"], version, rest) == [Status.OK, unvis(user)]


def test_a_version_that_is_newer_than_all_known_reads_like_the_newest():
    values = parse_report(EVENTS["tx_mail"], (1, 0), b"01234567|ok|a@example.org")
    assert values == ["01234567", Status.OK, "a@example.org"]


@pytest.mark.parametrize("version", [(0, 1), (0, 3), (1, 0), (9, 9)])
def test_fields_that_never_changed_places_are_read_in_order_in_any_version(version):
    assert parse_report(EVENTS["link_identify"], version, b"EHLO|a|b") == ["EHLO", "a|b"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"ok", Status.OK),
        (b"pass", Status.OK),
        (b"permfail", Status.PERMFAIL),
        (b"fail", Status.PERMFAIL),
        (b"tempfail", Status.TEMPFAIL),
        (b"error", Status.TEMPFAIL),
    ],
)
def test_every_result_that_smtpd_writes_is_a_status(raw, status):
    assert parse_report(EVENTS["tx_data"], NEWEST, b"01234567|" + raw) == ["01234567", status]


def test_link_connect_gives_typed_fields():
    rest = b"client.example.net|pass|192.0.2.10:35437|[::1]:25"
    rdns, fcrdns, src, dst = parse_report(EVENTS["link_connect"], NEWEST, rest)
    assert (rdns, fcrdns) == ("client.example.net", Status.OK)
    assert (src.ip, src.port, dst.ip, dst.port) == (V4, 35437, IPv6Address("::1"), 25)


@pytest.mark.parametrize(
    ("event", "rest"),
    [
        ("link_connect", b"name|pass|192.0.2.10:1"),
        ("tx_mail", b"01234567|ok"),
        ("tx_mail", None),
        ("tx_data", b"01234567|good"),
        ("tx_commit", b"01234567|many"),
        ("tx_commit", b"01234567|" + b"9" * 5000),
        ("tx_commit", b"01234567|-1"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_report_with_a_field_missing_or_wrong_is_refused(event, rest, version):
    with pytest.raises(RemoteProtocolError):
        parse_report(EVENTS[event], version, rest)


@pytest.mark.parametrize(
    ("event", "rest", "values"),
    [
        ("tx_reset", None, [None]),
        ("tx_reset", b"01234567", ["01234567"]),
        ("link_disconnect", None, []),
        ("link_disconnect", b"more", []),
        ("timeout", None, []),
        ("filter_response", b"connected|proceed", ["connected", "proceed", None]),
        (
            "filter_response",
            b"mail-from|reject|550 no | thanks",
            ["mail-from", "reject", "550 no | thanks"],
        ),
        ("filter_report", b"proc|name|a|b", ["proc", "name", "a|b"]),
        ("protocol_client", b"MAIL FROM:<a|b@example.org>", ["MAIL FROM:<a|b@example.org>"]),
        ("tx_commit", b"01234567|537", ["01234567", 537]),
    ],
)
def test_reports_give_their_fields(event, rest, values):
    assert parse_report(EVENTS[event], NEWEST, rest) == values


@pytest.mark.parametrize(
    ("phase", "rest", "values"),
    [
        ("ehlo", b"client.example.net", ["client.example.net"]),
        ("ehlo", b"a|with|pipes", ["a|with|pipes"]),
        ("auth", b"PLAIN AGFsaWNl", ["PLAIN AGFsaWNl"]),
        ("mail_from", b"", [""]),
        ("connect", b"client.example.net|[::1]", ["client.example.net", Address("[::1]")]),
        ("connect", b"client.example.net", ["client.example.net", Address("")]),
        ("connect", b"", ["", Address("")]),
        ("commit", b"", []),
        ("quit", b"unexpected", []),
    ],
)
def test_requests_give_their_fields_and_a_missing_one_is_empty(phase, rest, values):
    assert parse_parameter(PHASES[phase], rest) == values


@pytest.mark.parametrize("rdns", ["a|b.example.net", "x|pass|127.0.0.1:1|127.0.0.1:25|y", "|", ""])
def test_what_dns_says_of_a_client_never_stands_for_its_address(rdns):
    event, phase = EVENTS["link_connect"], PHASES["connect"]
    rest = f"{rdns}|fail|198.51.100.7:4711|192.0.2.25:25".encode()
    name, fcrdns, src, dst = parse_report(event, NEWEST, rest)
    assert (name, fcrdns, str(src), str(dst)) == (
        rdns,
        Status.PERMFAIL,
        "198.51.100.7",
        "192.0.2.25",
    )
    name, address = parse_parameter(phase, f"{rdns}|198.51.100.7".encode())
    assert (name, str(address)) == (rdns, "198.51.100.7")
