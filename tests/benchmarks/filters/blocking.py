"""Each client waits until a server on the loopback has answered: blocking.py PORT [thread]."""

import socket
import sys

from greenfilter import Filter

SERVER = ("127.0.0.1", int(sys.argv[1]))

app = Filter("blocking", threads=16)


@app.filter.connect(thread="thread" in sys.argv)
def ask(ctx, rdns, address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(20)
        asking.sendto(b"?", SERVER)
        asking.recv(16)
