"""Lines for the log: cut, escaped, counted."""

from __future__ import annotations

import os

import pytest

from greenfilter._process.stderr import LONGEST_LINE, Lines, Sink


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_pieces_of_any_size_give_the_same_lines(size):
    data = b"one\r\n\n" + b"x" * 5000 + b"\n\x1b\xc3\xa9\nlast"
    lines, found = Lines(), []
    for start in range(0, len(data), size):
        found += lines.feed(data[start : start + size])
    cut = b"x" * LONGEST_LINE + b"... [cut, 5,000 bytes]\n"
    expected = [b"one\n", b"\n", cut, b"\\x1b\xc3\xa9\n"]
    assert found == expected
    assert lines.end() == [b"last\n"]
    assert lines.end() == []


def test_a_line_of_the_greatest_length_is_whole():
    assert Lines().feed(b"x" * LONGEST_LINE + b"\n") == [b"x" * LONGEST_LINE + b"\n"]


def test_a_line_without_end_takes_no_more_memory_than_one():
    lines = Lines()
    for _ in range(100):
        lines.feed(b"x" * 65536)
    assert len(lines._begun) == LONGEST_LINE
    assert lines.end()[0].endswith(b"[cut, 6,553,600 bytes]\n")


def test_what_turns_the_direction_of_text_is_escaped():
    assert Lines().feed("a\u202eb\n".encode()) == [b"a\\u202eb\n"]


def test_a_reader_that_is_gone_is_no_error():
    read, write = os.pipe()
    os.close(read)
    sink = Sink(write)
    sink.put([b"text\n"])
    assert not sink.stuck
    os.close(write)
