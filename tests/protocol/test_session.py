"""What is known of a session and its transaction, from reports alone."""

import pytest

from greenfilter.errors import NeedError
from greenfilter.protocol import NEED_EVENTS, Need, Session, Status
from tests.protocol.driver import SID, report

M, M2 = b"01234567", b"89abcdef"
RESET = ("tx-reset", M)


def fed(*reports: tuple, version: str = "0.7", subsystem: str = "smtp-in", needs=None) -> Session:
    """A session that has been told these reports."""
    bits = sum(need.value for need in Need) if needs is None else needs.value
    session = Session(SID, subsystem == "smtp-in", bits)
    tell(session, *reports, version=version, subsystem=subsystem)
    return session


def tell(session: Session, *reports: tuple, version: str = "0.7", subsystem: str = "smtp-in"):
    for event, *fields in reports:
        line = report(event, *fields, version=version, subsystem=subsystem)
        session.add_report(line[:-1])


def mail(sender: bytes = b"alice@example.net", message_id: bytes = M) -> list[tuple]:
    return [("tx-begin", message_id), ("tx-mail", message_id, b"ok", sender)]


def rcpt(recipient: bytes, result: bytes = b"ok", message_id: bytes = M) -> list[tuple]:
    return [
        ("filter-response", b"rcpt-to", b"proceed"),
        ("tx-envelope", message_id, message_id + b"aaaabbbb"),
        ("tx-rcpt", message_id, result, recipient),
    ]


def rewritten(phase: bytes, value: bytes) -> tuple:
    return ("filter-response", phase, b"rewrite", value)


# The session


def test_a_new_session_knows_its_id_and_nothing_else():
    session = fed()
    assert session.id == SID.decode()
    known = [session.src, session.dst, session.rdns, session.fcrdns, session.greeting]
    known += [session.identity, session.method, session.ciphers, session.username, session.tx]
    assert known == [None] * 10
    assert (session.authenticated, session.closed, session.local) == (False, False, None)


def test_link_connect_tells_both_ends():
    session = fed(
        ("link-connect", b"client.example.net", b"pass", b"192.0.2.10:35437", b"192.0.2.25:3525")
    )
    assert (str(session.src), session.src.port) == ("192.0.2.10", 35437)
    assert (str(session.dst), session.dst.port) == ("192.0.2.25", 3525)
    assert (session.rdns, session.fcrdns) == ("client.example.net", Status.OK)


def test_a_client_over_ipv6_without_a_name():
    session = fed(("link-connect", b"<unknown>", b"fail", b"[2001:db8::1]:1", b"[::1]:25"))
    assert (str(session.src), session.src.port) == ("2001:db8::1", 1)
    assert session.src.ip.version == 6
    assert (session.rdns, session.fcrdns) == ("<unknown>", Status.PERMFAIL)


def test_a_client_on_the_local_socket():
    path = b"unix:/var/run/smtpd.sock"
    session = fed(("link-connect", b"mx.example.org", b"pass", path, path))
    assert session.src.path == "/var/run/smtpd.sock"
    assert (session.src.ip, session.src.port) == (None, None)


def test_greeting_identity_method_and_ciphers():
    session = fed(
        ("link-greeting", b"mx.example.org"),
        ("link-identify", b"HELO", b"client.example.net"),
        ("link-tls", b"TLSv1.3:TLS_AES_256_GCM_SHA384:256"),
    )
    assert session.greeting == "mx.example.org"
    assert (session.method, session.identity) == ("HELO", "client.example.net")
    assert session.ciphers == "TLSv1.3:TLS_AES_256_GCM_SHA384:256"


def test_identity_is_the_last_one_and_may_hold_pipes():
    session = fed(("link-identify", b"HELO", b"first"), ("link-identify", b"EHLO", b"a|b"))
    assert (session.method, session.identity) == ("EHLO", "a|b")


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
@pytest.mark.parametrize(
    ("wire", "name"),
    [(b"alice", "alice"), (b"al|ice", "al|ice"), (rb"two\040words\^J", "two words\n")],
)
def test_the_user_name_is_decoded_in_every_version(version, wire, name):
    fields = (b"pass", wire) if version == "0.7" else (wire, b"pass")
    session = fed(("link-auth", *fields), version=version)
    assert (session.username, session.authenticated) == (name, True)


@pytest.mark.parametrize("result", [b"fail", b"error"])
def test_a_failed_auth_names_nobody(result):
    session = fed(("link-auth", result, b"alice"))
    assert (session.username, session.authenticated) == (None, False)


def test_a_failed_auth_after_a_good_one_changes_nothing():
    session = fed(("link-auth", b"pass", b"alice"), ("link-auth", b"fail", b"bob"))
    assert session.username == "alice"


# The transaction


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_a_transaction_knows_sender_recipients_and_envelopes(version):
    def fields(address: bytes) -> tuple:
        return (M, b"ok", address) if version >= "0.6" else (M, address, b"ok")

    session = fed(
        ("tx-begin", M),
        ("tx-mail", *fields(b"alice@example.net")),
        ("tx-envelope", M, b"0123456789abcdef"),
        ("tx-rcpt", *fields(b"b|ob@example.org")),
        version=version,
    )
    tx = session.tx
    assert (tx.message_id, tx.mail_from) == ("01234567", "alice@example.net")
    assert tx.rcpt_to == ["b|ob@example.org"]
    assert tx.envelope_ids == ["0123456789abcdef"]


def test_the_null_sender_is_empty_and_not_none():
    assert fed(*mail(b"")).tx.mail_from == ""


def test_before_the_sender_was_told_it_is_none():
    assert fed(("tx-begin", M)).tx.mail_from is None


@pytest.mark.parametrize("result", [b"permfail", b"tempfail"])
def test_refused_recipients_are_not_recipients(result):
    session = fed(*mail(), ("tx-rcpt", M, result, b"bob@example.org"), *rcpt(b"carol@example.org"))
    assert session.tx.rcpt_to == ["carol@example.org"]


def test_a_recipient_named_twice_is_there_twice():
    session = fed(*mail(), *rcpt(b"bob@example.org"), *rcpt(b"bob@example.org"))
    assert session.tx.rcpt_to == ["bob@example.org"] * 2


def test_a_rewritten_sender_is_the_sender():
    session = fed(rewritten(b"mail-from", b"<new@example.net>"), *mail())
    assert session.tx.mail_from == "new@example.net"


@pytest.mark.parametrize(
    ("value", "sender"),
    [
        (b"<new@example.net> SIZE=1", "new@example.net"),
        (b"<>", ""),
        (b"<a|b@example.net>", "a|b@example.net"),
        (b"bare@example.net", "bare@example.net"),
        (b">odd<", ">odd<"),
    ],
)
def test_the_new_address_stands_between_the_brackets(value, sender):
    assert fed(rewritten(b"mail-from", value), *mail()).tx.mail_from == sender


def test_a_rewritten_recipient_is_the_recipient_and_the_next_one_is_itself():
    session = fed(
        *mail(),
        rewritten(b"rcpt-to", b"<new@example.org>"),
        ("tx-rcpt", M, b"ok", b"bob@example.org"),
        *rcpt(b"carol@example.org"),
    )
    assert session.tx.rcpt_to == ["new@example.org", "carol@example.org"]


def test_a_rewrite_that_smtpd_refused_is_forgotten():
    session = fed(
        *mail(),
        rewritten(b"rcpt-to", b"<bad address>"),
        ("tx-rcpt", M, b"permfail", b"bob@example.org"),
        ("tx-rcpt", M, b"ok", b"carol@example.org"),
    )
    assert session.tx.rcpt_to == ["carol@example.org"]


def test_a_rewrite_of_the_identity_does_not_touch_addresses():
    session = fed(rewritten(b"ehlo", b"new.example.net"), *mail())
    assert session.tx.mail_from == "alice@example.net"


def test_mail_inside_a_transaction_is_refused_and_changes_nothing():
    session = fed(*mail(), ("tx-mail", M, b"permfail", b"nested@example.net"))
    assert (session.tx.message_id, session.tx.mail_from) == ("01234567", "alice@example.net")


def test_a_pipelining_error_repeats_the_last_command_and_changes_nothing():
    session = fed(
        *mail(),
        ("tx-mail", M, b"permfail", b"alice@example.net"),
        *rcpt(b"bob@example.org"),
        ("tx-rcpt", M, b"permfail", b"bob@example.org"),
        ("tx-data", M, b"ok"),
        ("tx-data", M, b"permfail"),
    )
    assert session.tx.mail_from == "alice@example.net"
    assert session.tx.rcpt_to == ["bob@example.org"]


def test_a_mail_that_failed_opens_nothing():
    assert fed(("tx-mail", b"00000000", b"permfail", b"alice@example.net")).tx is None


@pytest.mark.parametrize("end", [[("tx-rollback", M)], [("tx-commit", M, b"537")], []])
def test_every_transaction_ends_at_tx_reset(end):
    session = fed(*mail(), *rcpt(b"bob@example.org"), *end)
    assert session.tx is not None
    tell(session, RESET)
    assert session.tx is None


def test_tx_reset_may_come_without_its_message_id():
    assert fed(*mail(), ("tx-reset",)).tx is None


def test_the_next_transaction_knows_nothing_of_the_last():
    session = fed(*mail(), *rcpt(b"bob@example.org"), RESET, *mail(b"x@example.net", M2))
    tx = session.tx
    assert (tx.message_id, tx.mail_from, tx.rcpt_to) == ("89abcdef", "x@example.net", [])
    assert tx.envelope_ids == []


def test_a_transaction_that_ended_keeps_what_it_was():
    session = fed(*mail(), *rcpt(b"bob@example.org"))
    tx = session.tx
    tell(session, RESET, *mail(b"x@example.net", M2), *rcpt(b"y@example.org", message_id=M2))
    assert session.tx is not tx
    assert (tx.message_id, tx.mail_from, tx.rcpt_to) == (
        "01234567",
        "alice@example.net",
        ["bob@example.org"],
    )


def test_a_begin_without_an_end_replaces_the_transaction():
    session = fed(*mail(), *mail(b"x@example.net", M2))
    assert session.tx.mail_from == "x@example.net"


def test_reports_of_another_message_do_not_touch_this_one():
    session = fed(*mail(), *rcpt(b"bob@example.org"), *rcpt(b"eve@example.org", message_id=M2))
    assert session.tx.rcpt_to == ["bob@example.org"]


def test_in_smtp_out_a_message_goes_on_after_tx_reset():
    session = fed(
        *mail(),
        *rcpt(b"bob@example.org"),
        ("tx-rollback", M),
        RESET,
        ("tx-rcpt", M, b"permfail", b"carol@example.org"),
        ("tx-data", M, b"ok"),
        subsystem="smtp-out",
    )
    tx = session.tx
    assert not session.incoming
    assert (tx.message_id, tx.mail_from, tx.rcpt_to) == (
        "01234567",
        "alice@example.net",
        ["bob@example.org"],
    )


def test_in_smtp_out_the_next_message_does_not_inherit():
    session = fed(*mail(), *rcpt(b"bob@example.org"), RESET, ("tx-data", M2, b"ok"))
    assert (session.tx.message_id, session.tx.rcpt_to) == ("89abcdef", [])


# Reading late


def test_many_unread_reports_are_read_and_not_kept():
    session = fed(*mail(), *(("tx-rcpt", M, b"ok", b"r%d@example.org" % i) for i in range(1000)))
    assert len(session._unread) <= 32
    assert len(session.tx.rcpt_to) == 1000


def test_a_transaction_reads_on_without_asking_the_session_again():
    session = fed(*mail())
    tx = session.tx
    tell(session, *rcpt(b"bob@example.org"))
    assert tx.rcpt_to == ["bob@example.org"]


@pytest.mark.parametrize(
    "broken",
    [
        ("link-connect", b"only.a.name"),
        ("link-auth", b"maybe", b"alice"),
        ("tx-mail", M),
        ("tx-begin",),
        ("tx-commit", M, b"9" * 5000),
        ("nonsense", b"x"),
        ("filter-response",),
    ],
)
def test_a_broken_report_is_skipped(broken):
    session = fed(("link-greeting", b"mx.example.org"), broken, *mail())
    assert session.greeting == "mx.example.org"
    assert session.tx.mail_from == "alice@example.net"


# Needs

_SESSION_FIELDS = ["src", "dst", "rdns", "fcrdns", "greeting", "identity", "method", "ciphers"]
_TX_FIELDS = ["message_id", "mail_from", "rcpt_to", "envelope_ids"]


@pytest.mark.parametrize("name", [*_SESSION_FIELDS, "username"])
def test_a_session_field_that_was_not_asked_for_raises(name):
    need = Need[name.upper()]
    assert getattr(fed(needs=need), name) is None
    others = ~need
    with pytest.raises(NeedError, match=name):
        getattr(fed(needs=others), name)


@pytest.mark.parametrize("name", _TX_FIELDS)
def test_a_transaction_field_that_was_not_asked_for_raises(name):
    need = Need[name.upper()]
    assert getattr(fed(("tx-begin", M), needs=need).tx, name) in ("01234567", None, [])
    with pytest.raises(NeedError, match=name):
        getattr(fed(("tx-begin", M), needs=~need).tx, name)


def test_authenticated_needs_the_user_name():
    with pytest.raises(NeedError):
        _ = fed(needs=Need.SRC).authenticated


@pytest.mark.parametrize("need", list(Need))
def test_the_reports_of_a_need_keep_its_field_true(need):
    story = [
        ("link-connect", b"client.example.net", b"pass", b"192.0.2.10:1", b"192.0.2.25:25"),
        ("link-greeting", b"mx.example.org"),
        ("link-identify", b"EHLO", b"client.example.net"),
        ("link-tls", b"TLSv1.3"),
        ("link-auth", b"pass", b"alice"),
        rewritten(b"mail-from", b"<new@example.net>"),
        *mail(),
        rewritten(b"rcpt-to", b"<new@example.org>"),
        ("tx-envelope", M, b"0123456789abcdef"),
        ("tx-rcpt", M, b"ok", b"bob@example.org"),
        ("tx-data", M, b"ok"),
    ]
    all_told = fed(*story)
    narrow = fed(*(event for event in story if event[0] in NEED_EVENTS[need]), needs=need)
    name = need.name.lower()

    def value(session: Session) -> object:
        return getattr(session.tx if name in _TX_FIELDS else session, name)

    assert value(narrow) == value(all_told)
    assert value(narrow) not in (None, [])


def test_the_transaction_cannot_be_read_where_no_need_names_a_field_of_it():
    session = Session(b"0" * 16, needs=Need.SRC.value)
    with pytest.raises(NeedError, match="transactions"):
        assert session.tx
    assert session.open_tx() is None
