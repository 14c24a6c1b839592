"""A filter that lets everything pass, written without greenfilter: it shows the harness works."""

import sys


def main() -> None:
    for line in sys.stdin.buffer:
        if line == b"config|ready\n":
            break
    for phase in (b"connect", b"ehlo", b"mail-from", b"rcpt-to", b"data", b"data-line", b"commit"):
        print_line(b"register|filter|smtp-in|" + phase)
    print_line(b"register|report|smtp-in|link-disconnect")
    print_line(b"register|report|smtp-out|tx-commit")
    print_line(b"register|ready")
    for line in sys.stdin.buffer:
        answer(line[:-1])


def answer(line: bytes) -> None:
    kind, _version, _time, subsystem, phase, sid, *rest = line.split(b"|", 7)
    if kind == b"report":
        print(f"reported {subsystem.decode()} {phase.decode()}", file=sys.stderr, flush=True)
    elif phase == b"data-line":
        print_line(b"filter-dataline|%b|%b|%b" % (sid, rest[0], rest[1]))
    else:
        print_line(b"filter-result|%b|%b|proceed" % (sid, rest[0]))


def print_line(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
