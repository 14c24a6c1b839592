"""Block in callbacks, as a filter that asks DNS or a database does."""

import threading
import time

from greenfilter import Filter

app = Filter("slow")

gate = threading.Event()


@app.filter.mail_from
def mail_from(ctx, sender):
    """Wait half a second; ``wait@`` until a ``go@`` of another session was asked for."""
    if sender.startswith("wait@"):
        gate.wait()
    elif sender.startswith("go@"):
        gate.set()
    else:
        time.sleep(0.5)
