"""Adds a header to the whole message."""

from greenfilter import Filter

app = Filter("message")


@app.message
def mark(ctx, message):
    message.headers.prepend("X-Checked", "yes")
