"""A filter without any library: answers from a script, else proceeds and passes every line.

Usage: tap.py [JSON], with any of
  register  list of registrations, "report|smtp-in|*" and all phases by default
  ready     whether to end the registration
  answers   {PHASE: [ANSWER, ...]}, then proceed; see answer() below
  data      what becomes of data-lines: a key of DATA below
  messages  for data "script": the lines to write for each message
  swapped   write the token first, as protocol 0.4 wants it
  status    exit status at end of file
"""

import json
import os
import sys

PHASES = (
    *("connect", "helo", "ehlo", "starttls", "auth", "mail-from", "rcpt-to", "data", "data-line"),
    *("rset", "quit", "noop", "help", "wiz", "commit"),
)
spec = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
answers = spec.get("answers", {})
held = []


def write(line):
    data = line + b"\n"
    while data:
        data = data[os.write(1, data) :]


def result(session, token, decision):
    ids = (token, session) if spec.get("swapped") else (session, token)
    write(b"|".join([b"filter-result", *ids, decision]))


def dataline(session, token, line):
    ids = (token, session) if spec.get("swapped") else (session, token)
    write(b"|".join([b"filter-dataline", *ids, line]))


def answer(phase, session, token):
    """ANSWER: a decision; "!LINE" (raw, with %S, %T); "none"; "exit N"; "print TEXT"."""
    decision = answers[phase].pop(0) if answers.get(phase) else "proceed"
    if decision.startswith("exit "):
        sys.exit(int(decision[5:]))
    if decision.startswith("print "):
        print(decision[6:], flush=True)
        decision = "proceed"
    if decision.startswith("!"):
        for line in decision[1:].split("\n"):
            line = line.replace("%S", session.decode()).replace("%T", token.decode())
            write(line.encode("utf-8", "surrogateescape"))
    elif decision != "none":
        result(session, token, decision.encode("utf-8", "surrogateescape"))


def echo(session, token, line):
    dataline(session, token, line)


def unstuffed(session, token, line):
    dataline(session, token, line[1:] if line.startswith(b"..") else line)


def without_dot(session, token, line):
    if line != b".":
        dataline(session, token, line)


def after_dot(session, token, line):
    dataline(session, token, line)
    if line == b".":
        dataline(session, token, b"more")


def with_result(session, token, line):
    result(session, token, b"proceed")


def reversed_lines(session, token, line):
    """Keep all until the end, and write it reversed."""
    held.append(line)
    if line == b".":
        for kept in [*held[-2::-1], line]:
            dataline(session, token, kept)
        held.clear()


def script(session, token, line):
    if line == b".":
        for kept in spec["messages"].pop(0):
            dataline(session, token, kept.encode("utf-8", "surrogateescape"))


DATA = {
    "echo": echo,
    "unstuffed": unstuffed,
    "without-dot": without_dot,
    "after-dot": after_dot,
    "result": with_result,
    "reversed": reversed_lines,
    "script": script,
}


def main():
    # smtpd makes the socket non-blocking, which a plain read loop cannot use.
    on_data = DATA[spec.get("data", "echo")]
    with open(0, "rb", closefd=False) as lines:
        for line in lines:
            words = line[:-1].split(b"|", 7)
            if words[:2] == [b"config", b"ready"]:
                phases = [f"filter|smtp-in|{phase}" for phase in PHASES]
                for name in spec.get("register", ["report|smtp-in|*", *phases]):
                    write(f"register|{name}".encode())
                if spec.get("ready", True):
                    write(b"register|ready")
                print("registered", file=sys.stderr, flush=True)
            elif words[0] == b"filter" and words[4] == b"data-line":
                on_data(words[5], words[6], words[7])
            elif words[0] == b"filter":
                answer(words[4].decode(), words[5], words[6])
    sys.exit(spec.get("status", 0))


main()
