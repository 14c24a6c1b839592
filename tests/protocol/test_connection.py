"""From bytes to queues: framing, configuration, and what makes no sense."""

import pytest

from greenfilter.protocol import LINE_TOO_LONG, MAX_LINE_BYTES, Chunk, Connection
from tests.protocol.driver import SID, TIME, TOKEN, Driver, report, request
from tests.testing import recordings

OTHER = b"c0ffee00c0ffee00"
RESULT = b"filter-result|%b|%b|proceed\n" % (SID, TOKEN)


def data_line(content: bytes, **options) -> bytes:
    return request("data-line", content, **options)


def written(content: bytes, sid: bytes = SID) -> bytes:
    return b"filter-dataline|%b|%b|%b\n" % (sid, TOKEN, content)


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def plain_recording() -> bytes:
    lines = recordings.lines("smtpd-7.8.0", "plain")
    return b"".join(line + b"\n" for direction, line in lines if direction == "<")


# Framing


def test_a_line_is_taken_when_its_lf_has_come_and_not_before():
    driver = Driver()
    line = request("ehlo", b"client.example.net")
    assert driver.feed(line[:-1]) == b""
    assert driver.feed(b"") == b""
    assert driver.feed(line[-1:]) == RESULT


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 65536])
def test_a_recorded_session_gives_the_same_answers_in_pieces_of_any_size(size):
    data = plain_recording()
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    assert Driver().feed(pieces) == Driver().feed(data) != b""


def test_a_line_cut_at_every_place_is_the_same_line():
    line = request("connect", b"client.example.net", b"192.0.2.10")
    for cut in range(len(line) + 1):
        driver = Driver()
        assert driver.feed([line[:cut], line[cut:]]) == RESULT
        assert driver.calls[0].values()[0] == "client.example.net"


def test_receive_gives_each_waiting_session_once_and_in_order():
    connection = Connection()
    lines = request("ehlo", b"a") + request("ehlo", b"b", sid=OTHER) + request("noop")
    ready = connection.receive(lines)
    assert [session.sid for session in ready] == [SID, OTHER]
    assert [len(session.queue) for session in ready] == [2, 1]
    assert connection.receive(request("quit")) == []


def test_a_session_is_given_again_when_its_queue_had_been_emptied():
    connection = Connection()
    (session,) = connection.receive(request("ehlo", b"a"))
    session.queue.clear()
    session.queued = False
    assert connection.receive(request("quit")) == [session]


def test_reports_of_a_busy_session_wait_in_its_queue():
    connection = Connection()
    (session,) = connection.receive(request("ehlo", b"a"))
    connection.receive(report("link-identify", b"EHLO", b"a"))
    assert session.identity is None
    assert session.queue[1].startswith(b"report|0.7|")


def test_a_line_of_65700_bytes_is_taken_whole():
    line = b"x" * 65_700
    driver = Driver()
    driver.feed(data_line(line))
    assert driver.chunks[0].lines == [line]
    assert driver.problems == []


# Fields that may hold anything


@pytest.mark.parametrize("identity", [b"a|with|pipes", b"cr\rinside", b"\xff\xfe", b"x" * 3000])
def test_the_last_field_may_hold_anything_but_lf(identity):
    driver = Driver()
    assert driver.feed(bytewise(request("ehlo", identity))) == RESULT
    assert driver.calls[0].values() == [identity.decode("utf-8", "surrogateescape")]
    assert driver.problems == []


@pytest.mark.parametrize(
    "content", [b"", b"a|b||", b"bare\rcr", b"end\r", b"\xe9\xff", b"..", b". ", b"filter|0.7|x"]
)
def test_data_lines_come_back_as_they_came(content):
    driver = Driver()
    lines = data_line(content) + data_line(b".")
    assert driver.feed(bytewise(lines)) == written(content) + written(b".")
    assert Driver().feed(lines) == written(content) + written(b".")


def test_call_knows_version_time_and_arguments():
    driver = Driver()
    driver.feed(request("connect", b"client.example.net", b"[::1]", version="0.6"))
    call = driver.calls[0]
    assert (call.version, call.time) == ((0, 6), 1795333857.855196)
    rdns, address = call.values()
    assert (rdns, str(address)) == ("client.example.net", "::1")


def test_a_time_stamp_that_is_none_is_zero():
    driver = Driver()
    driver.feed(request("noop").replace(TIME, b"noon"))
    assert driver.calls[0].time == 0.0


# Data lines in runs


def test_consecutive_lines_of_a_message_are_one_chunk_without_the_dot():
    driver = Driver()
    driver.feed(b"".join(map(data_line, [b"one", b"two", b"."])))
    (chunk,) = driver.chunks
    assert (chunk.lines, chunk.ended) == ([b"one", b"two"], True)


def test_lines_of_two_sessions_that_alternate_stay_apart():
    driver = Driver()
    lines = [data_line(b"%d" % i, sid=sid) for i in range(3) for sid in (SID, OTHER)]
    out = driver.feed(b"".join(lines)).splitlines(keepends=True)
    for sid in (SID, OTHER):
        assert [line for line in out if sid in line] == [written(b"%d" % i, sid) for i in range(3)]


def test_time_stamps_of_a_run_may_differ_in_length():
    driver = Driver()
    lines = [data_line(b"a"), data_line(b"b").replace(TIME, b"1"), data_line(b"c"), data_line(b".")]
    driver.feed(b"".join(lines))
    assert [line for chunk in driver.chunks for line in chunk.lines] == [b"a", b"b", b"c"]
    assert len({id(chunk.stream) for chunk in driver.chunks}) == 1


def test_a_message_after_the_dot_is_another_one():
    driver = Driver()
    driver.feed(b"".join(map(data_line, [b"a", b".", b"b", b"."])))
    assert [(chunk.lines, chunk.ended) for chunk in driver.chunks] == [
        ([b"a"], True),
        ([b"b"], True),
    ]
    assert driver.chunks[0].stream is not driver.chunks[1].stream


def test_a_dot_alone_in_the_next_piece_ends_the_message():
    driver = Driver()
    assert driver.feed([data_line(b"a"), data_line(b".")]) == written(b"a") + written(b".")


@pytest.mark.parametrize("next_line", [request("rset"), report("link-disconnect")])
def test_nothing_is_written_of_a_message_that_smtpd_has_left(next_line):
    connection = Connection()
    (session,) = connection.receive(data_line(b"a"))
    stream = session.queue[0].stream
    assert stream.open
    connection.receive(next_line)
    assert not stream.open


# Configuration


def test_config_is_kept_key_by_key():
    driver = Driver()
    data = plain_recording()
    driver.feed(data[: data.index(b"config|ready")])
    config = driver.connection.config
    assert not driver.connection.configured
    driver.feed(b"config|ready\n")
    assert driver.connection.configured
    assert config.smtpd_version == config["smtpd-version"] == "7.8.0-portable"
    assert config.protocol == (0, 7)
    assert config.smtp_session_timeout == 300.0
    assert config.subsystems == ["smtp-in"]
    assert config.admd == "mx.example.org"
    assert (config.get("nothing"), config.get("nothing", "x")) == (None, "x")


def test_config_of_a_server_that_says_nothing_has_defaults():
    config = Driver().connection.config
    assert (config.smtpd_version, config.protocol, config.admd) == (None, None, None)
    assert config.smtp_session_timeout == 300.0


@pytest.mark.parametrize("value", [b"", b"-1", b"soon", "٣".encode(), b"\xff"])
def test_a_time_out_that_is_no_number_is_the_default(value):
    driver = Driver()
    driver.feed(b"config|smtp-session-timeout|%b\n" % value)
    assert driver.connection.config.smtp_session_timeout == 300.0


def test_config_values_may_be_any_bytes():
    driver = Driver()
    driver.feed(b"config|protocol|\xff\nconfig|admd|a|b\nconfig|alone\n")
    config = driver.connection.config
    assert (config.protocol, config.admd, config["alone"]) == ((0, 7), "a|b", "")


def test_both_subsystems_are_listed_once():
    driver = Driver()
    driver.feed(b"config|subsystem|smtp-in\nconfig|subsystem|smtp-out\n" * 2)
    assert driver.connection.config.subsystems == ["smtp-in", "smtp-out"]


def test_config_after_ready_is_told_and_skipped():
    driver = Driver()
    driver.feed(b"config|ready\nconfig|admd|late\n")
    assert driver.connection.config.admd is None
    assert len(driver.problems) == 1


# What makes no sense

_GARBAGE = [
    b"",
    b"\r",
    b"|",
    b"||||||||",
    b"garbage",
    b"config",
    b"filter",
    b"filter|0.7|1|smtp-in|ehlo",
    b"filter|0.7|1|smtp-in|ehlo|" + SID,
    b"filter|0.7|1|smtp-in|data-line|" + SID,
    b"filter|0.7|1|smtp-in|ehlo|%b|short|x" % SID,
    b"filter|0.7|1|smtp-in|ehlo|%b|%b0|x" % (SID, TOKEN),
    b"filter|0.7|1|smtp-in|data-line|%b|%b0|x" % (SID, TOKEN),
    b"filter|0.7|1|smtp-in|ehlo|%b|%b|x" % (SID, TOKEN.upper()),
    b"filter|0.7|1|smtp-in|ehlo|short|%b|x" % TOKEN,
    b"filter|0.7|1|smtp-in|ehlo|%b|%b|x" % (SID.upper(), TOKEN),
    b"filter|0.7|1|smtp-in|ehlo|%b\xff|%b|x" % (SID[:15], TOKEN),
    b"filter|0.7|1|smtp-mid|ehlo|%b|%b|x" % (SID, TOKEN),
    b"filter|0.7|1|smtp-mid|data-line|%b|%b|x" % (SID, TOKEN),
    b"report",
    b"report|0.7|1|smtp-in|timeout",
    b"report|0.7|1|smtp-in|timeout|short",
    b"report|0.7|1|smtp-mid|timeout|" + SID,
]


@pytest.mark.parametrize("line", _GARBAGE)
def test_a_line_that_makes_no_sense_is_told_and_skipped(line):
    driver = Driver()
    assert driver.feed(line + b"\n") == b""
    assert len(driver.problems) == 1
    assert driver.connection.sessions == {}


@pytest.mark.parametrize("line", _GARBAGE)
def test_the_lines_around_garbage_are_served(line):
    driver = Driver()
    around = request("noop", sid=OTHER)
    out = driver.feed(around + line + b"\n" + around)
    assert out == RESULT.replace(SID, OTHER) * 2
    assert len(driver.problems) == 1


def test_a_request_of_a_known_session_is_answered_also_with_a_wrong_subsystem():
    driver = Driver()
    line = request("noop")
    assert driver.feed(line + line.replace(b"smtp-in", b"smtp-mid")) == RESULT * 2


@pytest.mark.parametrize("phase", ["", "nonsense", "CONNECT", "mail_from", "report"])
def test_an_unknown_phase_is_told_and_answered(phase):
    driver = Driver()
    assert driver.feed(request(phase, b"x")) == RESULT
    assert "unknown phase" in str(driver.problems[0])


def test_a_request_without_its_last_field_is_answered():
    driver = Driver()
    line = request("ehlo", b"x").replace(b"|x\n", b"\n")
    assert driver.feed(line) == RESULT
    assert driver.calls[0].values() == [""]


def test_a_data_line_without_its_last_field_is_an_empty_line():
    driver = Driver()
    line = request("data-line", b"x").replace(b"|x\n", b"\n")
    assert driver.feed(line) == written(b"")


def test_an_unknown_report_is_told_and_changes_nothing():
    driver = Driver()
    driver.feed(report("link-connect", b"name", b"pass", b"192.0.2.10:1", b"192.0.2.25:25"))
    driver.feed(report("link-nonsense", b"x"))
    assert "unknown report link-nonsense" in str(driver.problems[0])
    assert driver.connection.sessions[SID].rdns == "name"


@pytest.mark.parametrize("version", ["0.3", "0.8", "1.0", "9", "", "x"])
def test_an_unknown_version_is_told_once_and_served(version):
    driver = Driver()
    out = driver.feed(request("noop", version=version) * 3)
    assert out.count(b"|proceed\n") == 3
    assert len(driver.problems) == 1
    assert "continuing" in str(driver.problems[0])


@pytest.mark.parametrize("version", ["0.4", "0.5", "0.6", "0.7"])
def test_the_known_versions_are_not_worth_a_word(version):
    driver = Driver()
    driver.feed(request("noop", version=version) + report("timeout", version=version))
    assert driver.problems == []


def test_a_problem_is_told_on_one_short_line():
    driver = Driver()
    driver.feed(b"garbage\r\x1b\xff" + b"x" * 5000 + b"\n")
    text = str(driver.problems[0])
    assert text.isprintable()
    assert len(text) < 400


@pytest.mark.parametrize(
    "line",
    [
        b"filter|0.7|1|smtp-in|auth|%b|short|PLAIN AGFsaWNl" % SID,
        b"filter|0.7|1|smtp-mid|auth|%b|%b|PLAIN AGFsaWNl" % (SID, TOKEN),
        b"nonsense|0.7|1|smtp-in|auth|%b|%b|PLAIN AGFsaWNl" % (SID, TOKEN),
        b"report|0.7|1|smtp-mid|protocol-client|%b|AGFsaWNl" % SID,
        b"filter|0.7|1|smtp-in|auth|%b|%b|PLAIN AGFsaWNl%b"
        % (SID, TOKEN, b"x" * (MAX_LINE_BYTES + 1)),
    ],
)
def test_credentials_are_never_told(line):
    driver = Driver()
    driver.feed(line + b"\n")
    assert driver.problems
    assert "AGFsaWNl" not in "".join(map(str, driver.problems))


# Lines above the limit

_TOO_LONG = b"x" * (MAX_LINE_BYTES + 1)


@pytest.mark.parametrize("size", [4096, 65536, 1 << 30])
def test_an_overlong_request_is_cut_told_and_answered(size):
    driver = Driver()
    data = request("ehlo", _TOO_LONG) + request("noop")
    out = driver.feed(data[i : i + size] for i in range(0, len(data), size))
    assert out == RESULT * 2
    assert len(driver.calls[0].line) < 10_000
    assert len(driver.problems) == 1


@pytest.mark.parametrize("size", [4096, 65536, 1 << 30])
def test_a_message_with_an_overlong_line_is_refused_at_commit(size):
    driver = Driver()
    lines = [data_line(b"a"), data_line(_TOO_LONG), data_line(b"b"), data_line(b".")]
    data = b"".join([*lines, request("commit")])
    out = driver.feed(data[i : i + size] for i in range(0, len(data), size))
    assert out.splitlines()[-1] == RESULT.replace(b"proceed\n", LINE_TOO_LONG.wire)
    assert all(chunk.stream.damaged for chunk in driver.chunks)


def test_a_line_just_at_the_limit_is_whole():
    driver = Driver()
    line = request("ehlo")
    identity = b"x" * (MAX_LINE_BYTES - len(line) + 1)
    driver.feed(request("ehlo", identity))
    assert driver.calls[0].values() == [identity.decode()]
    assert driver.problems == []


def test_memory_for_a_line_without_end_is_bounded():
    driver = Driver()
    for _ in range(40):
        driver.feed(b"x" * 65536)
    held = len(driver.connection._tail) + len(driver.connection._cut)
    assert held <= MAX_LINE_BYTES
    assert driver.feed(b"\n" + request("noop")) == RESULT


# Sessions


def test_link_disconnect_closes_the_session_and_forgets_it():
    closed = []
    connection = Connection(on_close=closed.append)
    (session,) = connection.receive(request("quit"))
    connection.receive(report("link-disconnect"))
    assert session.closed
    assert closed == [session]
    assert connection.sessions == {}


def test_an_id_that_comes_again_is_a_new_session():
    driver = Driver()
    driver.feed(report("link-identify", b"EHLO", b"first"))
    old = driver.connection.sessions[SID]
    driver.feed(report("link-disconnect"))
    driver.feed(report("link-connect", b"name", b"pass", b"192.0.2.10:1", b"192.0.2.25:25"))
    new = driver.connection.sessions[SID]
    assert new is not old
    assert new.identity is None


def test_smtp_out_sessions_are_outgoing():
    driver = Driver()
    driver.feed(report("link-greeting", b"sink.example.com", subsystem="smtp-out"))
    assert not driver.connection.sessions[SID].incoming


def test_the_oldest_session_is_let_go_when_there_are_too_many():
    driver = Driver(max_sessions=2)
    sids = [b"%016x" % i for i in range(4)]
    driver.feed(b"".join(report("timeout", sid=sid) for sid in sids))
    assert [session.sid for session in driver.evicted] == sids[:2]
    assert list(driver.connection.sessions) == sids[2:]


def test_a_request_of_a_session_that_was_let_go_can_still_be_answered():
    connection = Connection(max_sessions=1)
    driver = Driver()
    (session,) = connection.receive(request("noop"))
    connection.receive(report("timeout", sid=OTHER))
    assert driver._take(session, session.queue.popleft()) == RESULT


def test_a_message_whose_session_was_let_go_half_through_is_refused():
    driver = Driver(max_sessions=1)
    driver.feed(data_line(b"first half") + report("timeout", sid=OTHER))
    driver.feed(data_line(b"second half") + data_line(b"."))
    assert b"|reject|554 " in driver.feed(request("commit"))


def test_a_message_whose_session_was_let_go_before_its_commit_is_refused():
    driver = Driver(max_sessions=1)
    driver.feed(data_line(b"whole") + data_line(b".") + report("timeout", sid=OTHER))
    assert b"|reject|451 " in driver.feed(request("commit"))
    driver.feed(data_line(b"next") + data_line(b"."))
    assert b"|proceed\n" in driver.feed(request("commit"))


def test_a_message_after_one_whose_session_was_let_go_is_not_refused():
    driver = Driver(max_sessions=1)
    driver.feed(data_line(b"whole") + data_line(b".") + request("noop", sid=OTHER))
    driver.feed(data_line(b"next") + data_line(b"."))
    assert b"|proceed\n" in driver.feed(request("commit"))


def test_a_session_notes_when_it_was_last_seen():
    connection = Connection()
    connection.receive(report("timeout") + report("timeout", sid=OTHER))
    connection.generation = 7
    connection.receive(data_line(b"a"))
    assert [session.seen for session in connection.sessions.values()] == [7, 1]


def test_wanted_reports_are_delivered_as_calls_and_others_are_not():
    connection = Connection(deliver=[("smtp-in", "tx-data")])
    out = report("tx-data", b"01234567", b"ok", sid=OTHER, subsystem="smtp-out")
    (session,) = connection.receive(out + report("tx-data", b"01234567", b"ok") + report("timeout"))
    assert session.sid == SID
    call, line = session.queue
    assert call.values() == ["01234567", "ok"]
    assert call.token is None
    assert b"timeout" in line


def test_tokens_without_end_are_answered_and_not_all_remembered():
    driver = Driver()
    tokens = [b"%016x" % number for number in range(1000)]
    out = driver.feed(b"".join(request("noop", token=token) for token in tokens))
    assert [line.split(b"|")[2] for line in out.splitlines()] == tokens
    assert len(driver.connection._tokens) < len(tokens)


def test_forgetting_a_session_leaves_a_newer_one_with_its_id():
    driver = Driver()
    driver.feed(report("timeout"))
    old = driver.connection.sessions[SID]
    driver.connection.forget(old)
    driver.feed(report("timeout"))
    driver.connection.forget(old)
    assert driver.connection.sessions[SID] is not old


def test_items_of_a_session_keep_their_order():
    connection = Connection()
    lines = [
        request("data"),
        report("tx-data", b"01234567", b"ok"),
        data_line(b"a"),
        data_line(b"."),
    ]
    (session,) = connection.receive(b"".join([*lines, request("commit")]))
    data, result, message, commit = session.queue
    assert (data.hook.wire, commit.hook.wire) == ("data", "commit")
    assert isinstance(result, bytes)
    assert isinstance(message, Chunk)
