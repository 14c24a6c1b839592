"""Read whole messages by every way that has to wait for their end."""

import sys

from greenfilter import Filter

app = Filter("gone")
app.local_message(lambda: "local", lambda local: print("message deleted", flush=True))
app.local_session(lambda: "local", lambda local: print("session deleted", flush=True))


def whole(ctx, message):
    message.headers.prepend("X-Size", str(message.size))


def stream(ctx, lines):
    for line in lines:
        if line == b"half":
            print("half", flush=True)
        yield line


def watch(ctx, lines):
    for line in lines:
        if line == b"half":
            print("tapped half", flush=True)


if sys.argv[1] == "message":
    app.message(whole)
else:
    app.lines(stream)
app.tap(watch)
