from __future__ import annotations

import json

import click

from greenfilter._commands.serve import protocol_watch
from greenfilter._commands.serve.protocol_watch import Watch
from greenfilter._commands.serve.transcript import Transcript

REQUEST = b"filter|0.7|1.0|smtp-in|%b|0123456789abcdef|fedcba9876543210|%b"
RESULT = b"filter-result|0123456789abcdef|fedcba9876543210|%b"
DATA = b"filter-dataline|0123456789abcdef|fedcba9876543210|%b"
SID = "0123456789abcdef"


def _message(watch: Watch, given: list[bytes], written: list[bytes]) -> None:
    for line in [*given, b"."]:
        watch("<", REQUEST % (b"data-line", line))
    for line in [*written, b"."]:
        watch(">", DATA % line)


def test_the_time_of_an_answer_is_that_since_its_request():
    watch = Watch()
    assert watch.seconds(SID) is None
    watch("<", REQUEST % (b"ehlo", b"me"))
    assert watch.seconds(SID) is None
    watch(">", RESULT % b"proceed")
    assert watch.seconds(SID) >= 0


def test_what_waits_for_its_answer_for_long_is_told_once(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(protocol_watch.time, "monotonic", lambda: now[0])
    watch = Watch()
    watch("<", REQUEST % (b"ehlo", b"me"))
    assert watch.unanswered(10.0) == []
    now[0] += 11
    assert watch.unanswered(10.0) == [(SID, "ehlo")]
    assert watch.unanswered(10.0) == []
    watch(">", RESULT % b"proceed")
    watch("<", REQUEST % (b"data-line", b"one"))
    now[0] += 11
    assert watch.unanswered(10.0) == []
    watch("<", REQUEST % (b"data-line", b"."))
    now[0] += 11
    assert watch.unanswered(10.0) == [(SID, "data-line")]


def test_changes_of_a_message_are_the_lines_that_differ():
    watch = Watch()
    _message(watch, [b"a", b"b"], [b"a", b"b"])
    assert watch.changes(SID) == []
    _message(watch, [b"a", b"b"], [b"new", b"a"])
    assert watch.changes(SID) == ["+ new", "- b"]


def test_a_long_message_is_not_compared_but_seen_to_differ():
    watch = Watch()
    long = [b"%d" % number for number in range(5000)]
    _message(watch, long, long)
    assert watch.changes(SID) == []
    _message(watch, long, long[:-1])
    assert watch.changes(SID) is None


def test_credentials_of_auth_are_hidden_in_the_protocol():
    seen = []
    watch = Watch(lambda direction, line, session_id: seen.append(line))
    watch("<", REQUEST % (b"auth", b"PLAIN AGFsaWNlAHNlY3JldA=="))
    watch(">", RESULT % b"rewrite|PLAIN AGFsaWNlAG90aGVy")
    watch("<", b"report|0.7|1.0|smtp-in|filter-response|0123456789abcdef|auth|rewrite|PLAIN AGFs")
    assert [line.rpartition("|")[2] for line in seen] == ["PLAIN ********"] * 3


def test_a_terminal_gets_no_control_characters_of_others():
    lines: list[str] = []
    transcript = Transcript(lines.append)
    transcript.client("1", "EHLO \x1b[2J\x9b2J")
    transcript.log("\x1b]0;title\x07")
    text = [click.unstyle(line) for line in lines]
    assert text[0].endswith(r"C: EHLO \x1b[2J\x9b2J")
    assert text[1].endswith(r"log: \x1b]0;title\x07")


def test_a_terminal_gets_the_numbers_of_bytes_that_are_not_utf8():
    lines: list[str] = []
    Transcript(lines.append).filtered("1", ["footer"], None, ["+ caf\udce9"])
    assert click.unstyle(lines[1]).endswith(r"+ caf\xe9")


def test_json_keeps_bytes_that_are_not_utf8():
    lines: list[str] = []
    Transcript(lines.append, as_json=True).client("1", "EHLO \udcff")
    assert lines[0].isascii()
    assert json.loads(lines[0])["line"] == "EHLO \udcff"


def test_many_changes_are_shown_in_part():
    lines: list[str] = []
    changes = [f"+ line {number}" for number in range(30)]
    Transcript(lines.append).filtered("1", ["footer"], 0.001, changes)
    assert "message changed" in lines[0]
    assert click.unstyle(lines[-1]).strip() == "... and 10 lines more"


def test_a_log_line_that_names_a_session_belongs_to_it():
    lines: list[str] = []
    transcript = Transcript(lines.append)
    transcript.connected(SID, "192.0.2.1:4711", "client.example.net", "pass")
    transcript.log(f"info: {SID}: something happened")
    transcript.log("info: fedcba9876543210: of another server")
    assert [" #1 " in line for line in lines] == [True, True, False]
