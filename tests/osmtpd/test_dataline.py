"""osmtpd_filter_dataline: the handler writes every line, and the final dot."""

import gevent
import pytest

from greenfilter import DecisionError
from greenfilter.testing import FakeSmtpd

MESSAGE = b"Subject: hello\n\n.dot\n.\n8-bit \xe9\xff 100% %s\n\n"


def send(osmtpd, message=MESSAGE, version="0.7", **options):
    """Send a message; return the reply and all lines of the filter's."""
    with FakeSmtpd(osmtpd.app, version, received=False, **options) as smtpd:
        reply = transact(smtpd.connect(), message)
        written = [line for way, line in smtpd.trace if way == ">" and b"filter-dataline|" in line]
    return reply, [line.split(b"|", 3)[3] for line in written]


def transact(session, message):
    session.ehlo("client.example.net")
    session.mail_from("alice@example.net")
    session.rcpt_to("bob@example.org")
    return session.data(message)


def delivered(message):
    return message.replace(b"\n", b"\r\n")


def echo(osmtpd):
    return lambda ctx, line: osmtpd.osmtpd_filter_dataline(ctx, line)


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_lines_come_as_on_the_wire_with_the_final_dot(osmtpd, version):
    seen = []

    def dataline(ctx, line):
        seen.append(line)
        assert ctx.phase == osmtpd.OSMTPD_PHASE_DATA_LINE
        assert ctx.type == osmtpd.OSMTPD_TYPE_FILTER
        assert ctx.token
        osmtpd.osmtpd_filter_dataline(ctx, "%s", line)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    reply, written = send(osmtpd, version=version)
    expected = [b"Subject: hello", b"", b"..dot", b"..", b"8-bit \xe9\xff 100% %s", b"", b"."]
    assert seen == written == expected
    assert reply.message == delivered(MESSAGE)


def test_a_callback_may_drop_replace_and_add_lines(osmtpd):
    def dataline(ctx, line):
        if line == b"twice":
            osmtpd.osmtpd_filter_dataline(ctx, b"100% %s")
        if line != b"drop":
            osmtpd.osmtpd_filter_dataline(ctx, "%s", line)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    reply, _ = send(osmtpd, b"a\ndrop\ntwice\n")
    assert reply.message == b"a\r\n100% %s\r\ntwice\r\n"


def test_a_callback_may_keep_all_lines_until_the_final_dot(osmtpd):
    osmtpd.osmtpd_local_message(lambda ctx: [], None)

    def dataline(ctx, line):
        ctx.local_message.append(line)
        if line == b".":
            for kept in [b"X-Lines: %d" % len(ctx.local_message), *ctx.local_message]:
                osmtpd.osmtpd_filter_dataline(ctx, kept)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    content = b"".join(b"line %d\n" % number for number in range(10_000))
    reply, _ = send(osmtpd, content)
    assert reply.message == b"X-Lines: 10001\r\n" + delivered(content)


def test_lines_may_be_written_from_another_greenlet_after_the_final_dot(osmtpd):
    lines = []

    def write_all(ctx):
        for line in lines:
            osmtpd.osmtpd_filter_dataline(ctx, line)
            gevent.sleep(0)

    def dataline(ctx, line):
        lines.append(line)
        if line == b".":
            gevent.spawn_later(0.01, write_all, ctx)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    reply, _ = send(osmtpd)
    assert reply.message == delivered(MESSAGE)


def test_lines_may_be_written_from_another_thread(osmtpd):
    lines = []

    def write_all(ctx):
        for line in lines:
            osmtpd.osmtpd_filter_dataline(ctx, line)

    def dataline(ctx, line):
        lines.append(line)
        if line == b".":
            gevent.get_hub().threadpool.spawn(write_all, ctx)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    content = b"".join(b"line %d\n" % number for number in range(5000))
    reply, _ = send(osmtpd, content)
    assert reply.message == delivered(content)


def test_lines_may_be_written_through_another_ctx_of_the_session(osmtpd):
    osmtpd.osmtpd_local_session(lambda ctx: ctx, None)
    osmtpd.osmtpd_register_filter_dataline(
        lambda ctx, line: osmtpd.osmtpd_filter_dataline(ctx.local_session, line)
    )
    reply, _ = send(osmtpd)
    assert reply.message == delivered(MESSAGE)


def test_what_is_written_after_the_final_dot_changes_nothing(osmtpd):
    returned = []

    def dataline(ctx, line):
        returned.append(osmtpd.osmtpd_filter_dataline(ctx, line))
        if line == b".":
            returned.append(osmtpd.osmtpd_filter_dataline(ctx, "more"))
            returned.append(osmtpd.osmtpd_filter_dataline(ctx, "."))

    osmtpd.osmtpd_register_filter_dataline(dataline)
    reply, written = send(osmtpd, b"hello\n")
    assert reply.message == b"hello\r\n"
    assert written == [b"hello", b"."]
    assert returned == [True, True, False, False]


def test_a_line_of_a_former_message_never_reaches_the_next(osmtpd):
    contexts = []

    def dataline(ctx, line):
        contexts.append(ctx)
        osmtpd.osmtpd_filter_dataline(contexts[0], "late")
        osmtpd.osmtpd_filter_dataline(ctx, line)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    with FakeSmtpd(osmtpd.app, received=False) as smtpd:
        session = smtpd.connect()
        first = transact(session, b"one\n")
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        second = session.data(b"two\n")
    assert first.message == b"late\r\none\r\nlate\r\n"
    assert second.message == b"two\r\n"


def test_a_final_dot_before_the_end_refuses_the_message(osmtpd):
    errors = []

    def dataline(ctx, line):
        if line == b"cut":
            with pytest.raises(DecisionError, match="cuts the message short") as info:
                osmtpd.osmtpd_filter_dataline(ctx, ".")
            errors.append(info.value)
            raise info.value
        osmtpd.osmtpd_filter_dataline(ctx, line)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    reply, written = send(osmtpd, b"a\ncut\nb\n")
    assert reply.lines[0].startswith("451 4.3.0")
    assert written.count(b".") == 1
    assert len(errors) == 1


@pytest.mark.parametrize("failing", [b"first", b"."])
def test_a_callback_that_fails_refuses_its_message_only(osmtpd, failing):
    def dataline(ctx, line):
        if line == failing and ctx.local_session == []:
            ctx.local_session.append("failed")
            raise ValueError("on purpose")
        osmtpd.osmtpd_filter_dataline(ctx, line)

    osmtpd.osmtpd_local_session(lambda ctx: [], None)
    osmtpd.osmtpd_register_filter_dataline(dataline)
    with FakeSmtpd(osmtpd.app, received=False) as smtpd:
        session = smtpd.connect()
        assert transact(session, b"first\nlast\n").lines[0].startswith("451 4.3.0")
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        assert session.data(b"first\nlast\n").message == b"first\r\nlast\r\n"
    assert len(smtpd.messages) == 1


@pytest.mark.parametrize("answer", ["proceed", "reject", "rewrite"])
def test_only_dataline_answers_a_data_line(osmtpd, answer):
    arguments = {"reject": (550, "no"), "rewrite": ("value",)}.get(answer, ())
    errors = []

    def dataline(ctx, line):
        try:
            getattr(osmtpd, f"osmtpd_filter_{answer}")(ctx, *arguments)
        except DecisionError as error:
            errors.append(error)
        osmtpd.osmtpd_filter_dataline(ctx, line)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    reply, _ = send(osmtpd, b"hello\n")
    assert reply.message == b"hello\r\n"
    assert len(errors) == 2


@pytest.mark.parametrize("line", ["a\nb", "a\0b", b"x" * 64_000, "\r\n."])
def test_a_line_that_cannot_be_sent_whole_refuses_the_message(osmtpd, line):
    def dataline(ctx, original):
        if original == b"bad":
            osmtpd.osmtpd_filter_dataline(ctx, line)
        else:
            osmtpd.osmtpd_filter_dataline(ctx, original)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    reply, written = send(osmtpd, b"a\nbad\nb\n")
    assert reply.code == 554
    assert written == [b"a", b"b", b"."]


def test_a_message_that_is_never_ended_is_ended_and_refused_at_the_deadline(osmtpd):
    osmtpd.app.deadline = 0.2
    osmtpd.osmtpd_register_filter_dataline(lambda ctx, line: None)
    reply, written = send(osmtpd, b"hello\n")
    assert reply.lines[0].startswith("451 4.3.0")
    assert written == [b"."]


def test_a_callback_that_blocks_past_its_deadline_refuses_the_message(osmtpd):
    osmtpd.app.deadline = 0.2

    def dataline(ctx, line):
        if line == b".":
            gevent.sleep(60)
        osmtpd.osmtpd_filter_dataline(ctx, line)

    osmtpd.osmtpd_register_filter_dataline(dataline)
    reply, written = send(osmtpd, b"hello\n")
    assert reply.lines[0].startswith("451 4.3.0")
    assert written.count(b".") == 1


def test_a_client_that_leaves_ends_the_message(osmtpd):
    returned, contexts = [], []

    def dataline(ctx, line):
        contexts.append(ctx)

    def disconnected(ctx):
        returned.append(osmtpd.osmtpd_filter_dataline(contexts[0], "late"))

    osmtpd.osmtpd_register_filter_dataline(dataline)
    osmtpd.osmtpd_register_report_disconnect(1, disconnected)
    with FakeSmtpd(osmtpd.app, received=False) as smtpd:
        session = smtpd.connect()
        session.ehlo("client.example.net")
        session.mail_from("alice@example.net")
        session.rcpt_to("bob@example.org")
        session.data_begin()
        session.data_lines([b"one", b"two"])
        with gevent.Timeout(5):
            while not contexts:
                gevent.sleep(0.001)
        session.disconnect()
    assert returned == [False]


def test_commit_still_decides_over_the_message(osmtpd):
    osmtpd.osmtpd_register_filter_dataline(echo(osmtpd))
    osmtpd.osmtpd_register_filter_commit(
        lambda ctx: osmtpd.osmtpd_filter_reject(ctx, 550, "not this one")
    )
    reply, _ = send(osmtpd)
    assert reply.lines == ("550 not this one",)
