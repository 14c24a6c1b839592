"""A message is exact to the byte, edited or not, and streamed from its spool."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenfilter._mail.message import Message, split_lines
from greenfilter._mail.spool import Spool
from greenfilter.errors import MessageTooBig, SpoolError

LINE = st.one_of(
    st.binary(max_size=30).map(lambda data: data.translate(None, b"\n\0")),
    st.sampled_from([b"", b"A: 1", b"a: 2", b" cont", b"B:", b"From x y", b"\r", b"none", b"."]),
)
LINES = st.lists(LINE, max_size=20)
SIMPLE = [b"From: a@example.com", b"Subject: hello", b"", b"body", b"", b"more"]


def make(lines, memory_bytes=1 << 20, **options):
    spool = Spool(memory_bytes=memory_bytes)
    spool.append(list(lines))
    return Message(spool, **options)


def joined(lines):
    return b"".join(line + b"\r\n" for line in lines)


def flat(batches):
    return [line for batch in batches for line in batch]


def check_views_agree(message, lines):
    assert flat(message.lines()) == lines
    assert message.raw == joined(lines)
    assert split_lines(message.raw) == lines
    assert message.size == len(message.raw)
    with message.open() as file:
        assert file.read() == message.raw


@given(LINES, st.integers(0, 100))
def test_a_message_that_nobody_edits_is_the_lines_that_came(lines, memory_bytes):
    message = make(lines, memory_bytes)
    check_views_agree(message, lines)
    _ = message.headers.items(), message.body
    assert not message.edited
    check_views_agree(message, lines)


@given(LINES, st.integers(0, 100))
def test_edited_headers_leave_the_body_exact(lines, memory_bytes):
    message = make(lines, memory_bytes)
    body = message.body
    message.headers.prepend("X-New", "1")
    edited = flat(message.lines())

    assert message.edited
    assert message.body == body
    check_views_agree(message, edited)
    edited.remove(b"X-New: 1")
    assert edited == lines


@given(LINES, LINES, st.booleans())
def test_a_body_that_is_set_follows_exact_headers(lines, body_lines, edit_headers):
    message = make(lines)
    message.body = joined(body_lines)
    if edit_headers:
        message.headers.append("X-New", "1")
    head = bytes(message.headers)
    blank = b"\r\n" if b"" in lines or body_lines else b""

    assert message.edited
    assert message.body == joined(body_lines)
    assert message.raw == head + blank + joined(body_lines)
    check_views_agree(message, split_lines(message.raw))


@given(LINES, LINES, st.integers(0, 60), st.integers(0, 60))
def test_an_edited_message_reads_in_any_parts(lines, body_lines, start, length):
    for set_body in (False, True):
        message = make(lines, memory_bytes=20)
        message.headers.append("X-New", "1")
        if set_body:
            message.body = joined(body_lines)
        with message.open() as file:
            file.seek(start)
            assert file.read(length) == message.raw[start : start + length]


@given(LINES)
def test_raw_splits_into_the_same_lines_even_where_they_end_in_cr(lines):
    ends_in_cr = [line + b"\r" for line in lines]
    assert split_lines(make(ends_in_cr).raw) == ends_in_cr


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"\r\n", [b""]),
        (b"a", [b"a"]),
        (b"a\r", [b"a\r"]),
        (b"\r", [b"\r"]),
        (b"a\nb\r\nc", [b"a", b"b", b"c"]),
        (b"a\r\r\nb", [b"a\r", b"b"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"a\n\n", [b"a", b""]),
        (b"\xff\r\n.\r\n", [b"\xff", b"."]),
        (bytearray(b"a\r\nb"), [b"a", b"b"]),
    ],
)
def test_split_lines(data, lines):
    assert split_lines(data) == lines
    assert all(type(line) is bytes for line in split_lines(data))


def test_split_lines_refuses_text():
    with pytest.raises(TypeError, match="mail is bytes, not str"):
        split_lines("text")


@pytest.mark.parametrize(
    ("lines", "block", "body"),
    [
        ([], b"", b""),
        ([b"A: 1"], b"A: 1\r\n", b""),
        ([b"A: 1", b""], b"A: 1\r\n", b""),
        ([b"", b"x"], b"", b"x\r\n"),
        ([b"A: 1", b"", b"", b"x"], b"A: 1\r\n", b"\r\nx\r\n"),
        ([b"A: 1", b"\r", b"", b"x\r"], b"A: 1\r\n\r\r\n", b"x\r\r\n"),
        ([b"A: 1", b" ", b"x"], b"A: 1\r\n \r\nx\r\n", b""),
    ],
)
def test_the_first_blank_line_ends_the_headers(lines, block, body):
    message = make(lines)
    assert bytes(message.headers) == block
    assert message.body == body


@pytest.mark.parametrize("size", [*range(16_376, 16_392), 65_530, 65_536, 65_540, 300_000])
def test_headers_of_any_size_are_found_whole(size):
    lines = [b"A: " + b"x" * (size - 5), b"", b"body", b"", b"B: no"]
    message = make(lines)
    assert len(bytes(message.headers)) == size
    assert list(message.headers) == ["A"]
    assert message.body == b"body\r\n\r\nB: no\r\n"


def test_a_message_of_one_header_takes_a_body_after_a_blank_line():
    message = make([b"A: 1"])
    message.body = b"new"
    check_views_agree(message, [b"A: 1", b"", b"new"])


def test_an_empty_body_keeps_the_blank_line_that_was_there():
    message = make(SIMPLE)
    message.body = b""
    check_views_agree(message, [*SIMPLE[:2], b""])


def test_an_empty_message_takes_headers_and_body():
    message = make([])
    check_views_agree(message, [])
    message.headers.append("A", "1")
    check_views_agree(message, [b"A: 1"])
    message.body = b"x\ny\n"
    check_views_agree(message, [b"A: 1", b"", b"x", b"y"])


def test_a_body_with_any_line_ends_gets_crlf():
    message = make(SIMPLE)
    message.body = b"one\ntwo\r\nthree\r\r\nlast"
    assert message.body == b"one\r\ntwo\r\nthree\r\r\nlast\r\n"
    check_views_agree(message, [*SIMPLE[:3], b"one", b"two", b"three\r", b"last"])


def test_a_body_of_text_is_refused_and_changes_nothing():
    message = make(SIMPLE)
    with pytest.raises(TypeError, match="bytes"):
        message.body = "text"
    assert not message.edited


def test_edits_do_not_reach_lines_and_files_that_were_taken_before():
    message = make(SIMPLE, memory_bytes=0)
    message.headers.prepend("A", "1")
    lines, file = message.lines(), message.open()
    message.headers.prepend("B", "2")
    message.body = b"other"

    assert flat(lines) == [b"A: 1", *SIMPLE]
    assert file.read() == joined([b"A: 1", *SIMPLE])
    assert flat(message.lines()) == [b"B: 2", b"A: 1", *SIMPLE[:3], b"other"]


def test_a_header_block_above_the_limit_stops_those_who_need_it_only():
    lines = [b"A: " + b"x" * 60] * 100 + [b"", b"body"]
    message = make(lines, max_header_bytes=6499)
    for use in (
        lambda: message.headers,
        lambda: message.body,
        lambda: setattr(message, "body", b"x"),
    ):
        with pytest.raises(MessageTooBig, match="header block is above the limit of 6499 bytes"):
            use()
    check_views_agree(message, lines)
    assert make(lines, max_header_bytes=6500).body == b"body\r\n"


def test_the_limit_holds_for_headers_that_never_end():
    lines = [b"A: " + b"x" * 60] * 3000
    with pytest.raises(MessageTooBig):
        _ = make(lines, max_header_bytes=100_000).headers
    assert len(make(lines, max_header_bytes=195_000).headers) == 3000


def test_a_message_that_is_only_passed_on_is_not_parsed():
    message = make(SIMPLE)
    flat(message.lines())
    _ = message.raw, message.size, message.edited
    assert message._headers is None
    assert message._parts is None


def test_as_email_is_the_standard_library_view_of_the_message_as_edited():
    message = make([*SIMPLE[:2], b"X-Raw: \xe9", *SIMPLE[2:]])
    message.headers.replace("Subject", "changed")
    email = message.as_email()

    assert email["subject"] == "changed"
    assert email.get_content() == "body\r\n\r\nmore\r\n"
    email["X-New"] = "1"
    assert "X-New" not in message.headers
    assert b"\r\nX-New: 1\r\n" in email.as_bytes()


def test_as_email_survives_any_header_block():
    for lines in ([], [b" leading"], [b"odd"], [b"", b"x"], [b"From x y", b"A: 1", b"", b"\xff"]):
        assert isinstance(make(lines).as_email().as_bytes(), bytes)


def multipart(depth, innermost=(b"", b"text")):
    lines = []
    for number in range(depth):
        lines += [b'Content-Type: multipart/mixed; boundary="b%d"' % number, b"", b"--b%d" % number]
    return [*lines, *innermost]


def attachments(count):
    part = [b"--b", b"Content-Disposition: attachment; filename=a.txt", b"", b"text"]
    return [b'Content-Type: multipart/mixed; boundary="b"', b"", *part * count, b"--b--"]


def test_as_email_reads_messages_within_its_limits():
    assert len(list(make(multipart(50)).as_email().walk())) == 51
    names = [part.get_filename() for part in make(attachments(1000)).as_email().walk()]
    assert names == [None, *["a.txt"] * 1000]
    rfc822 = [b"Content-Type: message/rfc822", b""] * 50
    assert len(list(make([*rfc822, b"", b"text"]).as_email().walk())) == 51


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (multipart(51), "parts within parts, more than 50"),
        (multipart(5000), "parts within parts, more than 50"),
        ([b"Content-Type: message/rfc822", b""] * 5000, "parts within parts, more than 50"),
        (attachments(1001), "more than 1000 parts"),
        ([b"", *[b"-"] * 1_000_001], "more than 1000000 lines"),
        ([b"Content-Type: a/b" + b";" * 9000], "Content-Type has more than 8192 characters"),
        ([b"Content-Disposition: a", *[b' "\\"'] * 3000], "Content-Disposition has more than"),
        ([b"To: " + b"a@b," * 70_000], "more than 262144 characters"),
        ([b"Content-Id: " + b"a" * 8000] * 40, "more than 262144 characters"),
    ],
)
def test_as_email_refuses_what_would_take_too_long(lines, problem):
    message = make(lines)
    start = time.process_time()
    with pytest.raises(MessageTooBig, match=problem):
        message.as_email()
    assert time.process_time() - start < 10
    check_views_agree(message, lines)


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Disposition: a" + b"(" * 4000,
        b"Content-Type: " + b"(" * 4000,
        b"Content-Transfer-Encoding: " + b"(" * 4000,
        b"From: " + b"(" * 4000,
        b"To: " + b"<" * 450,
    ],
)
def test_a_field_that_the_standard_library_cannot_parse_is_text(field):
    email = make([field, b"", b"body"]).as_email()
    for part in email.walk():
        assert part.get_filename() is None
    name = field.partition(b":")[0].decode()
    assert str(email[name]).startswith(field.partition(b": ")[2][:1].decode())
    assert bytes(email).startswith(field)


def test_long_fields_cost_nothing_any_more_once_the_message_is_parsed():
    lines = attachments(30)
    lines[1:1] = [b"To: " + b"someone@example.org, " * 2000]
    lines = [line.replace(b"a.txt", b";a=b" * 1500) for line in lines]
    email = make(lines).as_email()
    start = time.process_time()
    for part in email.walk():
        assert part["Content-Disposition"] or part is email
    assert len(email["to"].addresses) == 2000
    assert time.process_time() - start < 0.1


def test_as_email_keeps_the_lines_of_fields_that_are_not_changed():
    lines = [b"X-Long: " + b"a b " * 60, b"References: <a@b>", b"\t<c@d>", b"", b"body"]
    email = make(lines).as_email()
    email["X-New"] = "1"
    assert email.as_bytes().split(b"\r\n")[:3] == lines[:3]


def test_the_result_of_as_email_may_be_built_upon_without_limits():
    email = make([b"Subject: x", b"", b"body"]).as_email()
    for number in range(1005):
        email.add_attachment(b"x", "application", "octet-stream", filename=f"{number}.bin")
    assert len(list(email.iter_attachments())) == 1005


def test_a_message_whose_spool_was_closed_says_so():
    spool = Spool()
    spool.append(SIMPLE)
    message = Message(spool)
    message.headers.prepend("A", "1")
    lines = message.lines()
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        _ = message.raw
    with pytest.raises(SpoolError, match="closed"):
        flat(lines)
