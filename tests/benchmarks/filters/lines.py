"""Looks at each line and keeps it."""

from greenfilter import Filter

app = Filter("lines")


@app.filter.data_line
def keep(ctx, line):
    return None
