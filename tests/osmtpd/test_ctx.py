"""What callbacks get: their arguments and the fields of ctx, in and out of their needs."""

import time

import pytest

from greenfilter import Address, RegistrationError
from greenfilter.testing import FakeSmtpd

PEER = "client.example.net"
NEEDS = (
    *("SRC", "DST", "RDNS", "FCRDNS", "IDENTITY", "GREETING", "CIPHERS"),
    *("MSGID", "MAILFROM", "RCPTTO", "EVPID"),
)
FIELDS = (
    *("src", "dst", "rdns", "fcrdns", "identity", "greeting", "ciphers"),
    *("msgid", "mailfrom", "rcptto", "evpid"),
)
UNKNOWN = {
    **dict.fromkeys(("src", "dst", "rdns", "identity", "ciphers", "mailfrom")),
    **{"fcrdns": 1, "greeting": (None,), "msgid": 0, "evpid": 0, "rcptto": []},
}


def known(ctx):
    return {name: getattr(ctx, name) for name in FIELDS}


def at_data(osmtpd, version="0.7"):
    """Run a session to DATA; return the fields that its callback saw."""
    seen = []

    def data(ctx):
        seen.append(known(ctx))
        osmtpd.osmtpd_filter_proceed(ctx)

    osmtpd.osmtpd_register_filter_data(data)
    with FakeSmtpd(osmtpd.app, version) as smtpd:
        session = smtpd.connect(src="192.0.2.1:4711", dst="[2001:db8::25]:25", fcrdns="fail")
        session.ehlo(PEER)
        session.starttls("TLSv1.3:cipher:256")
        session.ehlo(PEER)
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        session.rcpt_to("nobody@example.org", result="permfail")
        session.rcpt_to("carol@example.org")
        session.data(b"Subject: hello\n\nhello\n")
        message_id = [line for _, line in smtpd.trace if b"|tx-begin|" in line]
    return *seen, int(message_id[0].rpartition(b"|")[2], 16) if message_id else None


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_needed_fields_are_known(osmtpd, version):
    for name in NEEDS:
        osmtpd.osmtpd_need(getattr(osmtpd, f"OSMTPD_NEED_{name}"))
    seen, message_id = at_data(osmtpd, version)
    evpid = seen.pop("evpid")
    assert evpid >> 32 == message_id
    assert seen == {
        "src": Address("192.0.2.1:4711"),
        "dst": Address("[2001:db8::25]:25"),
        "rdns": PEER,
        "fcrdns": osmtpd.OSMTPD_STATUS_PERMFAIL,
        "identity": PEER,
        "greeting": ("mx.example.org",),
        "ciphers": "TLSv1.3:cipher:256",
        "msgid": message_id,
        "mailfrom": "alice@example.net",
        "rcptto": ["bob@example.org", "carol@example.org"],
    }
    assert message_id


def test_fields_that_were_not_asked_for_have_the_defaults_of_c(osmtpd):
    assert at_data(osmtpd) == (UNKNOWN, None)


@pytest.mark.parametrize("field", range(len(NEEDS)))
def test_a_need_gives_its_own_field_and_no_other(osmtpd, field):
    osmtpd.osmtpd_need(getattr(osmtpd, f"OSMTPD_NEED_{NEEDS[field]}"))
    seen, _ = at_data(osmtpd)
    assert [name for name in FIELDS if seen[name] != UNKNOWN[name]] == [FIELDS[field]]


def test_fields_that_are_not_known_yet_have_the_defaults_of_c(osmtpd):
    seen = []
    for name in NEEDS:
        osmtpd.osmtpd_need(getattr(osmtpd, f"OSMTPD_NEED_{name}"))
    osmtpd.osmtpd_local_session(lambda ctx: seen.append(known(ctx)), None)
    osmtpd.osmtpd_register_report_greeting(1, lambda ctx, identity: seen.append(known(ctx)))
    with FakeSmtpd(osmtpd.app) as smtpd:
        smtpd.connect(src="192.0.2.1:4711", dst="192.0.2.25:25")
    at_creation, at_greeting = seen
    link = {"src": Address("192.0.2.1:4711"), "dst": Address("192.0.2.25:25")}
    link |= {"rdns": PEER, "fcrdns": osmtpd.OSMTPD_STATUS_OK}
    assert at_creation == UNKNOWN | link
    assert at_greeting == UNKNOWN | link | {"greeting": ("mx.example.org",)}


def test_identity_is_the_new_one_at_ehlo_already(osmtpd):
    seen = []

    def ehlo(ctx, identity):
        seen.append((identity, ctx.identity))
        osmtpd.osmtpd_filter_proceed(ctx)

    osmtpd.osmtpd_need(osmtpd.OSMTPD_NEED_IDENTITY)
    osmtpd.osmtpd_register_filter_ehlo(ehlo)
    with FakeSmtpd(osmtpd.app) as smtpd:
        smtpd.connect().ehlo(PEER)
    assert seen == [(PEER, PEER)]


def test_a_ctx_tells_of_its_event(osmtpd):
    events = []

    def note(ctx):
        events.append((ctx.type, ctx.phase, ctx.incoming, ctx.reqid, ctx.token))
        assert (ctx.version_major, ctx.version_minor) == (0, 6)
        assert abs(ctx.tm.tv_sec + ctx.tm.tv_nsec / 1e9 - time.time()) < 60

    def noop(ctx):
        note(ctx)
        osmtpd.osmtpd_filter_proceed(ctx)

    osmtpd.osmtpd_register_filter_noop(noop)
    osmtpd.osmtpd_register_report_disconnect(1, note)
    osmtpd.osmtpd_register_report_disconnect(0, note)
    with FakeSmtpd(osmtpd.app, "0.6", subsystems=("smtp-in", "smtp-out")) as smtpd:
        session = smtpd.connect()
        session.ehlo(PEER)
        session.noop()
        session.quit()
        out = smtpd.connect_out()
        out.quit()
        asked = next(line for _, line in smtpd.trace if b"|noop|" in line)
    token = int(asked.split(b"|")[6], 16)
    noop_phase, gone = osmtpd.OSMTPD_PHASE_NOOP, osmtpd.OSMTPD_PHASE_LINK_DISCONNECT
    assert events == [
        (osmtpd.OSMTPD_TYPE_FILTER, noop_phase, 1, int(session.id, 16), token),
        (osmtpd.OSMTPD_TYPE_REPORT, gone, 1, int(session.id, 16), 0),
        (osmtpd.OSMTPD_TYPE_REPORT, gone, 0, int(out.id, 16), 0),
    ]
    assert token


def test_the_fraction_of_tm_is_in_nanoseconds(osmtpd):
    seen = []
    osmtpd.osmtpd_register_report_timeout(1, lambda ctx: seen.append(ctx.tm))
    with FakeSmtpd(osmtpd.app) as smtpd:
        smtpd.send_raw(b"report|0.7|1576146008.006099|smtp-in|timeout|00000000000000ab\n")
        smtpd.send_raw(b"report|0.7|nonsense|smtp-in|timeout|00000000000000ab\n")
    assert seen == [(1576146008, 6_099_000), (0, 0)]
    assert seen[0].tv_nsec == 6_099_000


def test_filter_callbacks_get_the_arguments_of_c(osmtpd):
    seen = {}

    def callback(name):
        def called(ctx, *arguments):
            seen[name] = (ctx.phase, arguments)
            osmtpd.osmtpd_filter_proceed(ctx)

        return called

    one = ("connect", "rdns, address"), ("helo", "a"), ("ehlo", "a"), ("auth", "a")
    more = ("mailfrom", "a"), ("rcptto", "a")
    none = (
        ("starttls", ""),
        ("data", ""),
        ("rset", ""),
        ("quit", ""),
        ("noop", ""),
        ("commit", ""),
    )
    for name, _ in (*one, *more, *none):
        getattr(osmtpd, f"osmtpd_register_filter_{name}")(callback(name))
    with FakeSmtpd(osmtpd.app) as smtpd:
        session = smtpd.connect(src="192.0.2.1:4711")
        session.helo("old.example.net")
        session.ehlo(PEER)
        session.starttls()
        session.ehlo(PEER)
        session.auth("alice", "secret")
        session.noop()
        session.mail_from("alice@example.net")
        session.rset()
        session.mail_from("")
        session.rcpt_to("b|ob@example.org")
        session.data(b"hello\n")
        session.quit()
    phase = {name: value[0] for name, value in seen.items()}
    assert phase == {
        name: getattr(osmtpd, f"OSMTPD_PHASE_{wire}")
        for name, wire in (
            (n, {"mailfrom": "MAIL_FROM", "rcptto": "RCPT_TO"}.get(n, n.upper())) for n in seen
        )
    }
    assert {name: arguments for name, (_, arguments) in seen.items()} == {
        "connect": (PEER, Address("192.0.2.1")),
        "helo": ("old.example.net",),
        "ehlo": (PEER,),
        "auth": ("PLAIN AGFsaWNlAHNlY3JldA==",),
        "mailfrom": ("",),
        "rcptto": ("b|ob@example.org",),
        **dict.fromkeys(("starttls", "data", "rset", "quit", "noop", "commit"), ()),
    }


REPORTS = {
    "link-connect|{sid}|host.example|error|192.0.2.1:1|unix:/path": (
        *("connect", "LINK_CONNECT"),
        ("host.example", 1, Address("192.0.2.1:1"), Address("unix:/path")),
    ),
    "link-greeting|{sid}|mx.example.org": ("greeting", "LINK_GREETING", ("mx.example.org",)),
    "link-identify|{sid}|EHLO|a.example": ("identify", "LINK_IDENTIFY", ("a.example",)),
    "link-tls|{sid}|TLSv1.3:c:256": ("tls", "LINK_TLS", ("TLSv1.3:c:256",)),
    "tx-begin|{sid}|0000abcd": ("begin", "TX_BEGIN", (0xABCD,)),
    "tx-mail|{sid}|0000abcd|ok|": ("mail", "TX_MAIL", (0xABCD, "", 0)),
    "tx-rcpt|{sid}|0000abcd|permfail|b|ob@example.org": (
        *("rcpt", "TX_RCPT"),
        (0xABCD, "b|ob@example.org", 2),
    ),
    "tx-envelope|{sid}|0000abcd|0000abcd00000001": (
        *("envelope", "TX_ENVELOPE"),
        (0xABCD, 0xABCD00000001),
    ),
    "tx-data|{sid}|0000abcd|tempfail": ("data", "TX_DATA", (0xABCD, 1)),
    "tx-commit|{sid}|0000abcd|317": ("commit", "TX_COMMIT", (0xABCD, 317)),
    "tx-rollback|{sid}|0000abcd": ("rollback", "TX_ROLLBACK", (0xABCD,)),
    "protocol-client|{sid}|NOOP a|b": ("client", "PROTOCOL_CLIENT", ("NOOP a|b",)),
    "protocol-server|{sid}|250 ok": ("server", "PROTOCOL_SERVER", ("250 ok",)),
    "filter-response|{sid}|rcpt-to|rewrite|<a|b@example.org>": (
        *("response", "FILTER_RESPONSE"),
        ("rcpt-to|rewrite|<a|b@example.org>",),
    ),
    "filter-response|{sid}|connected|proceed": (
        *("response", "FILTER_RESPONSE"),
        ("connected|proceed",),
    ),
    "timeout|{sid}": ("timeout", "TIMEOUT", ()),
    "link-disconnect|{sid}": ("disconnect", "LINK_DISCONNECT", ()),
}


@pytest.mark.parametrize("incoming", [1, 0])
@pytest.mark.parametrize("line", REPORTS)
def test_report_callbacks_get_the_arguments_of_c(osmtpd, line, incoming):
    name, phase, arguments = REPORTS[line]
    seen = []
    getattr(osmtpd, f"osmtpd_register_report_{name}")(
        incoming, lambda ctx, *values: seen.append((ctx.phase, ctx.incoming, values))
    )
    subsystem = "smtp-in" if incoming else "smtp-out"
    with FakeSmtpd(osmtpd.app, subsystems=(subsystem,)) as smtpd:
        for each in ("smtp-in", "smtp-out"):
            sid = {"smtp-in": "00000000000000ab", "smtp-out": "00000000000000cd"}[each]
            smtpd.send_raw(f"report|0.7|1.000001|{each}|{line.format(sid=sid)}\n".encode())
    assert seen == [(getattr(osmtpd, f"OSMTPD_PHASE_{phase}"), incoming, arguments)]


def test_conf_gets_every_key_and_then_none(osmtpd):
    seen = []
    osmtpd.osmtpd_register_conf(lambda key, value: seen.append("replaced"))
    osmtpd.osmtpd_register_conf(lambda key, value: seen.append((key, value)))
    osmtpd.osmtpd_register_report_timeout(1, lambda ctx: None)
    with FakeSmtpd(osmtpd.app, subsystems=("smtp-in", "smtp-out"), session_timeout=77):
        pass
    assert ("subsystem", "smtp-in") in seen
    assert ("subsystem", "smtp-out") in seen
    assert ("smtp-session-timeout", "77") in seen
    assert seen[-1] == (None, None)
    assert "replaced" not in seen


def test_local_objects_are_made_and_deleted_once_each(osmtpd):
    events = []

    def create(what):
        return lambda ctx: events.append(f"new {what}") or {"what": what}

    def delete(what):
        return lambda ctx, local: events.append(f"delete {local.pop('what')}")

    def rcptto(ctx, rcpt):
        ctx.local_session["seen"] = ctx.local_message["seen"] = True
        osmtpd.osmtpd_filter_proceed(ctx)

    def mailfrom(ctx, sender):
        events.append(f"mail-from {ctx.local_message}")
        osmtpd.osmtpd_filter_proceed(ctx)

    osmtpd.osmtpd_local_session(create("session"), delete("session"))
    osmtpd.osmtpd_local_message(create("message"), delete("message"))
    osmtpd.osmtpd_register_filter_mailfrom(mailfrom)
    osmtpd.osmtpd_register_filter_rcptto(rcptto)
    with FakeSmtpd(osmtpd.app) as smtpd:
        session = smtpd.connect()
        session.ehlo(PEER)
        for _ in range(2):
            session.mail_from("alice@example.net")
            session.rcpt_to("bob@example.org")
            session.data(b"hello\n")
        session.mail_from("alice@example.net")
        session.disconnect()
    message = ["mail-from None", "new message", "delete message"]
    assert events == ["new session", *message * 3, "delete session"]


def test_local_objects_can_be_set_without_hooks(osmtpd):
    seen = []

    def ehlo(ctx, identity):
        ctx.local_session = identity
        with pytest.raises(AttributeError, match="outside of a transaction"):
            ctx.local_message = "too early"
        osmtpd.osmtpd_filter_proceed(ctx)

    def rcptto(ctx, rcpt):
        ctx.local_message = rcpt
        osmtpd.osmtpd_filter_proceed(ctx)

    def data(ctx):
        seen.append((ctx.local_session, ctx.local_message))
        osmtpd.osmtpd_filter_proceed(ctx)

    osmtpd.osmtpd_local_message(None, None)
    osmtpd.osmtpd_register_filter_ehlo(ehlo)
    osmtpd.osmtpd_register_filter_rcptto(rcptto)
    osmtpd.osmtpd_register_filter_data(data)
    with FakeSmtpd(osmtpd.app) as smtpd:
        session = smtpd.connect()
        session.ehlo(PEER)
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        session.data(b"hello\n")
    assert seen == [(PEER, "bob@example.org")]


def test_what_cannot_be_called_is_refused_at_registration(osmtpd):
    def ehlo(ctx): ...

    with pytest.raises(
        RegistrationError, match=r"test_ctx.py:\d+: osmtpd_register_filter_ehlo\(\)"
    ):
        osmtpd.osmtpd_register_filter_ehlo(ehlo)
    with pytest.raises(RegistrationError, match=r"osmtpd_register_report_timeout\(\) takes"):
        osmtpd.osmtpd_register_report_timeout(1, None)
    with pytest.raises(RegistrationError, match=r"osmtpd_local_session\(\) takes"):
        osmtpd.osmtpd_local_session(lambda: None, None)


def test_two_callbacks_for_one_event_are_refused_at_registration(osmtpd):
    osmtpd.osmtpd_register_filter_noop(lambda ctx: None)
    with pytest.raises(RegistrationError, match="has a handler already"):
        osmtpd.osmtpd_register_filter_noop(lambda ctx: None)
    osmtpd.osmtpd_register_report_timeout(1, lambda ctx: None)
    osmtpd.osmtpd_register_report_timeout(0, lambda ctx: None)
    with pytest.raises(RegistrationError, match="has a handler already"):
        osmtpd.osmtpd_register_report_timeout(0, lambda ctx: None)
    osmtpd.osmtpd_register_filter_dataline(lambda ctx, line: None)
    with pytest.raises(RegistrationError, match="already"):
        osmtpd.osmtpd_register_filter_dataline(lambda ctx, line: None)
