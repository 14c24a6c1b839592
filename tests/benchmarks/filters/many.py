"""Holds every client until one named ``release`` comes; one named ``now`` never waits."""

import threading

from greenfilter import Filter

app = Filter("many", deadline=600)
released = threading.Event()


@app.filter.connect
def hold(ctx, rdns, address):
    if rdns == "release":
        released.set()
    elif rdns != "now":
        released.wait()
