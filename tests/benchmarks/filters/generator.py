"""Adds a header, line by line."""

from greenfilter import Filter

app = Filter("generator")


@app.lines
def mark(ctx, lines):
    yield b"X-Checked: yes"
    yield from lines
