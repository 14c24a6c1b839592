"""Conditions: each key at each phase, and facts that are not known yet."""

from __future__ import annotations

import pytest

from greenfilter import Context, RegistrationError
from greenfilter._chain.conditions import Condition, problems_of, warnings_of
from greenfilter.protocol import PHASES, Call, Session

SID = b"00000000000000a1"
CONNECT = "client.example.net|pass|192.0.2.10:4711|192.0.2.25:587"
COMMANDS = ["helo", "ehlo", "starttls", "auth", "mail_from", "rcpt_to"]
COMMANDS += ["data", "rset", "quit", "noop", "commit"]


def ctx(phase: str, value: str = "", *reports: str) -> Context:
    """A request, in a session of which smtpd has told these reports: "event|field|field"."""
    session = Session(SID)
    for report in reports:
        event, _, rest = report.partition("|")
        line = f"report|0.7|1.0|smtp-in|{event}|{SID.decode()}" + (f"|{rest}" if rest else "")
        session.add_report(line.encode())
    head = f"filter|0.7|1.0|smtp-in|{PHASES[phase].wire}|{SID.decode()}|{'b' * 16}|".encode()
    return Context(Call(session, PHASES[phase], head + value.encode(), len(head)))


def begin(*recipients: str, sender: str = "alice@example.net") -> list[str]:
    accepted = [f"tx-rcpt|0000abcd|ok|{recipient}" for recipient in recipients]
    return ["tx-begin|0000abcd", f"tx-mail|0000abcd|ok|{sender}", *accepted]


def holds(table, context, *, every=False) -> bool:
    return Condition(table).matches(context, every)


CONNECTED = ctx("connect", "client.example.net|192.0.2.10", f"link-connect|{CONNECT}")


class TestAuthenticated:
    @pytest.mark.parametrize("phase", ["connect", *COMMANDS])
    def test_is_false_until_it_is_reported(self, phase):
        context = ctx(phase, "x|192.0.2.10" if phase == "connect" else "")
        assert not holds({"authenticated": True}, context)
        assert holds({"authenticated": False}, context)

    @pytest.mark.parametrize("phase", COMMANDS)
    def test_is_true_from_then_on(self, phase):
        context = ctx(phase, "", "link-auth|ok|alice")
        assert holds({"authenticated": True}, context)
        assert not holds({"authenticated": False}, context)

    def test_one_that_failed_does_not_count(self):
        assert not holds({"authenticated": True}, ctx("mail_from", "", "link-auth|permfail|alice"))


class TestTls:
    @pytest.mark.parametrize("phase", ["connect", *COMMANDS])
    def test_is_false_until_it_is_reported(self, phase):
        context = ctx(phase, "x|192.0.2.10" if phase == "connect" else "")
        assert not holds({"tls": True}, context)
        assert holds({"tls": False}, context)

    @pytest.mark.parametrize("phase", COMMANDS)
    def test_is_true_from_then_on(self, phase):
        assert holds({"tls": True}, ctx(phase, "", "link-tls|TLSv1.3:TLS_AES_256_GCM_SHA384:256"))


class TestNetworks:
    @pytest.mark.parametrize("phase", COMMANDS)
    def test_match_the_client_at_each_phase(self, phase):
        context = ctx(phase, "", f"link-connect|{CONNECT}")
        assert holds({"networks": ["198.51.100.0/24", "192.0.2.0/24"]}, context)
        assert not holds({"networks": ["198.51.100.0/24"]}, context)

    def test_match_at_connect_by_what_is_asked(self):
        assert holds({"networks": ["192.0.2.10"]}, ctx("connect", "client.example.net|192.0.2.10"))
        assert holds({"networks": "2001:db8::/32"}, ctx("connect", "<unknown>|[2001:db8::1]"))

    def test_match_an_ipv4_client_that_is_written_as_ipv6(self):
        assert holds({"networks": ["192.0.2.0/24"]}, ctx("connect", "x|[::ffff:192.0.2.10]"))

    @pytest.mark.parametrize("address", ["local", ""])
    def test_do_not_match_a_client_without_an_address(self, address):
        assert not holds({"networks": ["0.0.0.0/0", "::/0"]}, ctx("connect", f"x|{address}"))

    def test_do_not_match_before_anything_is_known(self):
        assert not holds({"networks": ["0.0.0.0/0", "::/0"]}, ctx("ehlo", "client.example.net"))


class TestListeners:
    @pytest.mark.parametrize("item", ["192.0.2.25", ":587", "192.0.2.25:587"])
    @pytest.mark.parametrize("phase", ["connect", *COMMANDS])
    def test_match_by_address_and_port(self, item, phase):
        value = "client.example.net|192.0.2.10" if phase == "connect" else ""
        assert holds({"listeners": [item]}, ctx(phase, value, f"link-connect|{CONNECT}"))

    @pytest.mark.parametrize("item", ["192.0.2.26", ":25", "192.0.2.25:25", "socket"])
    def test_do_not_match_another_one(self, item):
        assert not holds({"listeners": [item]}, CONNECTED)

    @pytest.mark.parametrize("item", ["2001:db8::25", "[2001:db8::25]", "[2001:db8::25]:25"])
    def test_match_ipv6(self, item):
        report = "link-connect|x|pass|[2001:db8::10]:4711|[2001:db8::25]:25"
        assert holds({"listeners": [item]}, ctx("ehlo", "x", report))

    def test_match_the_socket(self):
        report = "link-connect|mx|pass|unix:/var/run/smtpd.sock|unix:/var/run/smtpd.sock"
        context = ctx("ehlo", "x", report)
        assert holds({"listeners": ["socket"]}, context)
        assert not holds({"listeners": [":25", "192.0.2.25"]}, context)

    def test_do_not_match_before_they_are_known(self):
        assert not holds({"listeners": [":587", "socket"]}, ctx("ehlo", "x"))


class TestRdns:
    @pytest.mark.parametrize("phase", ["connect", *COMMANDS])
    def test_matches_a_confirmed_name(self, phase):
        value = "client.example.net|192.0.2.10" if phase == "connect" else ""
        context = ctx(phase, value, f"link-connect|{CONNECT}")
        assert holds({"rdns": ["Client.Example.Net"]}, context)
        assert holds({"rdns": ["*.example.net"]}, context)
        assert not holds({"rdns": ["example.net"]}, context)

    @pytest.mark.parametrize("fcrdns", ["fail", "error"])
    def test_does_not_match_a_name_that_is_not_confirmed(self, fcrdns):
        report = f"link-connect|client.example.net|{fcrdns}|192.0.2.10:1|192.0.2.25:25"
        assert not holds({"rdns": ["*"]}, ctx("ehlo", "x", report))

    def test_does_not_match_before_it_is_known(self):
        assert not holds({"rdns": ["*"]}, ctx("connect", "client.example.net|192.0.2.10"))


class TestIdentities:
    @pytest.mark.parametrize("phase", ["helo", "ehlo"])
    def test_match_what_is_asked(self, phase):
        assert holds({"identities": ["*.example.net"]}, ctx(phase, "MX.example.net"))

    @pytest.mark.parametrize("phase", ["mail_from", "rcpt_to", "data", "commit", "auth", "noop"])
    def test_match_later_what_was_said(self, phase):
        context = ctx(phase, "", "link-identify|EHLO|mx.example.net")
        assert holds({"identities": ["mx.example.net"]}, context)

    def test_do_not_match_before_they_are_known(self):
        assert not holds({"identities": ["*"]}, CONNECTED)


class TestSenders:
    def test_match_what_is_asked(self):
        context = ctx("mail_from", "Alice@Example.net")
        assert holds({"senders": ["alice@example.net"]}, context)
        assert holds({"senders": ["bob@example.net", "@EXAMPLE.net"]}, context)
        assert holds({"senders": ["al*@example.*"]}, context)
        assert not holds({"senders": ["@net", "bob@example.net"]}, context)

    @pytest.mark.parametrize("phase", ["rcpt_to", "data", "commit", "rset"])
    def test_match_later_by_the_transaction(self, phase):
        context = ctx(phase, "x@example.org", *begin("bob@example.org"))
        assert holds({"senders": ["@example.net"]}, context)
        assert not holds({"senders": ["@example.org"]}, context)

    @pytest.mark.parametrize("item", ["", "<>"])
    def test_match_the_null_sender(self, item):
        assert holds({"senders": [item]}, ctx("mail_from", ""))
        assert not holds({"senders": [item]}, ctx("mail_from", "alice@example.net"))

    @pytest.mark.parametrize("phase", ["ehlo", "auth", "quit"])
    def test_do_not_match_before_they_are_known(self, phase):
        assert not holds({"senders": ["*", "<>"]}, ctx(phase, "x"))

    def test_brackets_of_an_address_literal_are_themselves(self):
        context = ctx("mail_from", "a@[192.0.2.1]")
        assert holds({"senders": ["a@[192.0.2.1]"]}, context)
        assert holds({"senders": ["*@[192.0.2.1]"]}, context)
        assert not holds({"senders": ["*@[192.0.2.1]"]}, ctx("mail_from", "a@1"))


class TestRecipients:
    def test_are_about_the_one_that_is_asked_for(self):
        context = ctx("rcpt_to", "carol@example.org", *begin("bob@example.com"))
        assert holds({"recipients": ["@example.org"]}, context, every=False)
        assert not holds({"recipients": ["@example.com"]}, context)

    @pytest.mark.parametrize("phase", ["data", "commit"])
    def test_of_a_message_match_by_any_or_by_all(self, phase):
        context = ctx(phase, "", *begin("bob@example.com", "carol@example.org"))
        assert holds({"recipients": ["@example.org"]}, context)
        assert not holds({"recipients": ["@example.org"]}, context, every=True)
        assert holds({"recipients": ["@example.org", "@example.com"]}, context, every=True)

    def test_refused_ones_do_not_count(self):
        reports = [*begin("bob@example.com"), "tx-rcpt|0000abcd|permfail|carol@example.org"]
        assert not holds({"recipients": ["@example.org"]}, ctx("data", "", *reports))

    @pytest.mark.parametrize("every", [False, True])
    def test_do_not_match_while_there_is_none(self, every):
        assert not holds({"recipients": ["*"]}, ctx("data", "", *begin()), every=every)
        assert not holds({"recipients": ["*"]}, ctx("mail_from", "a@example.net"), every=every)


class TestTables:
    def test_all_keys_have_to_match(self):
        context = ctx("mail_from", "alice@example.net", f"link-connect|{CONNECT}")
        assert holds({"senders": "@example.net", "networks": "192.0.2.0/24"}, context)
        assert not holds({"senders": "@example.net", "networks": "198.51.100.0/24"}, context)

    def test_a_function_is_given_ctx(self):
        assert Condition(lambda ctx: ctx.phase == "ehlo").matches(ctx("ehlo", "x"))
        assert not Condition(lambda ctx: ctx.phase == "helo").matches(ctx("ehlo", "x"))

    def test_all_that_is_wrong_is_told_at_once(self):
        problems = problems_of({"sender": "@x", "tls": 1, "networks": ["10.0.0.0/33"]})
        assert [problem.key for problem in problems] == ["sender", "tls", "networks"]
        with pytest.raises(RegistrationError, match=r"sender: no such condition.*tls: .*networks:"):
            Condition({"sender": "@x", "tls": 1, "networks": ["10.0.0.0/33"]})

    @pytest.mark.parametrize(
        "table",
        [
            {},
            [],
            "tls",
            {"tls": "yes"},
            {"authenticated": 1},
            {"networks": []},
            {"networks": [1]},
            {"networks": "mx.example.org"},
            {"networks": "192.0.2.1/24"},
            {"listeners": "mx"},
            {"listeners": ":0"},
            {"listeners": ":smtp"},
            {"listeners": ":99999"},
            {"listeners": ""},
            {"rdns": ""},
            {"senders": "example.net"},
            {"recipients": ""},
            {"recipients": {"domain": "example.net"}},
        ],
    )
    def test_what_is_no_condition_is_refused(self, table):
        assert problems_of(table)


def test_check_warns_of_what_the_client_chooses():
    found = warnings_of(["identities", "networks"], ["identities", "networks"], False)
    assert len(found) == 1
    assert found[0].startswith("unless.identities")


def test_check_warns_of_authenticated_where_a_member_decides_at_connect():
    assert warnings_of(["authenticated"], [], True)
    assert not warnings_of(["authenticated"], [], False)
