"""Answers each datagram after 50 ms: DNS questions with "no such name", all else as it came.

``peak`` is answered at once: how many questions waited at a time, at most, and how many there were
in all, since this was last asked.
Prints its port, then serves until killed.
"""

import socket
import sys
import time
from collections import deque

WAIT = 0.05
NO_SUCH_NAME = bytes.fromhex("8183 0001 0000 0000 0000")  # flags, and counts (RFC 1035, 4.1.1)


def no_such_name(question):
    """The answer to a DNS question: its id, name and type, and NXDOMAIN."""
    end = question.index(b"\0", 12) + 5
    return question[:2] + NO_SUCH_NAME + question[12:end]


def main(answer):
    """Serve, each answer made by ``answer`` of the question."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    server.bind(("127.0.0.1", 0))
    print(server.getsockname()[1], flush=True)
    waiting = deque()
    peak = total = 0
    while True:
        server.settimeout(max(1e-4, waiting[0][0] - time.monotonic()) if waiting else None)
        try:
            question, client = server.recvfrom(512)
        except TimeoutError:
            pass
        else:
            if question == b"peak":
                server.sendto(b"%d %d" % (peak, total), client)
                peak = total = 0
            else:
                waiting.append((time.monotonic() + WAIT, answer(question), client))
                total += 1
                peak = max(peak, len(waiting))
        while waiting and waiting[0][0] <= time.monotonic():
            server.sendto(*waiting.popleft()[1:])


main(no_such_name if sys.argv[1:] == ["dns"] else bytes)
