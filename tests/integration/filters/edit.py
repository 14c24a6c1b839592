"""Edit messages as their own lines say, by one of the three ways: ``edit.py data_line``."""

import sys

from greenfilter import DROP, Filter, reject

app = Filter("edit")


def edited(line):
    """Return the lines that replace a line."""
    verb, _, rest = line.partition(b" ")
    return {b"DROP": [], b"TWICE": [rest, rest], b"REPLACE": [rest]}.get(verb, [line])


def data_line(ctx, line):
    lines = edited(line)
    if lines == [line]:
        return None
    if not lines:
        return DROP
    return lines[0] if len(lines) == 1 else (each for each in lines)


def lines(ctx, lines):
    for line in lines:
        yield from edited(line)


def message(ctx, message):
    if message.headers.get("Subject") == "refuse":
        return reject(550, "refused for its subject", enhanced="5.7.1")
    if message.headers.get("Subject") == "replace":
        return b"Subject: replaced\n\n.all of it\n"
    lines = message.body.split(b"\r\n")[:-1]
    message.body = b"".join(new + b"\r\n" for line in lines for new in edited(line))
    message.headers.prepend("X-Edited", "yes")


if sys.argv[1] == "data_line":
    app.filter.data_line(data_line)
elif sys.argv[1] == "lines":
    app.lines(lines)
else:
    app.message(thread=True)(message)
