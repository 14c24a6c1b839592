"""Show what clients get from the stock filter rbl: ``python examples/demo.py``.

Needs no mail server and no network: greenfilter.testing plays smtpd, and the blocklists are a DNS
server on loopback, slow or silent for some clients. Ends with status 1 if a client did not get
what is written here, or if the sessions waited for each other.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import dns.message
import dns.rcode
import dns.rrset
import gevent
from gevent.server import DatagramServer

from greenfilter.testing import FakeSmtpd

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOW_SECONDS = 0.8
TIME_LIMIT_SECONDS = 2.0
OPTIONS = (
    f"--zone=zen.example.org=5 --zone=bl.example.net=2 --threshold=5 --timeout={TIME_LIMIT_SECONDS}"
    " --code=127.0.0.2=spam-source --code=127.0.0.10=dynamic,1 --allow=198.51.100.0/24"
).split()
RECORDS = {
    "5.113.0.203.zen.example.org.": "127.0.0.2",
    "5.113.0.203.bl.example.net.": "127.0.0.2",
    "6.113.0.203.zen.example.org.": "127.0.0.10",
    "7.113.0.203.zen.example.org.": "127.0.0.2",
    "25.100.51.198.zen.example.org.": "127.0.0.2",
    f"{'d.a.b.0.' + '0.' * 20}8.b.d.0.1.0.0.2.zen.example.org.": "127.0.0.2",
}


class Client(NamedTuple):
    """Who connects, and whether its mail is to be accepted."""

    what: str
    src: str
    accepted: bool = True
    user: str = ""


class Result(NamedTuple):
    """What a client got, and how long it took."""

    client: Client
    reply: str
    accepted: bool
    seconds: float


CLIENTS = [
    Client("clean", "192.0.2.10:4000"),
    Client("clean, IPv6", "[2001:db8::1]:4000"),
    Client("on both lists", "203.0.113.5:4000", accepted=False),
    Client("on a list, IPv6", "[2001:db8::bad]:4000", accepted=False),
    Client("listed as dynamic", "203.0.113.6:4000"),
    Client("listed, authenticated", "203.0.113.7:4000", user="alice"),
    Client("listed, allowed", "198.51.100.25:4000"),
    Client("this machine", "127.0.0.1:4000"),
    Client("list never answers", "192.0.2.254:4000"),
    *(Client("list answers slowly", f"192.0.2.{number}:4000") for number in range(200, 220)),
]


def answer(question: bytes) -> bytes | None:
    """Return what the DNS server of both lists answers, if anything."""
    query = dns.message.from_wire(question)
    asked = query.question[0].name
    name = asked.to_text()
    octet = name.partition(".")[0]
    if name.startswith("254.2.0.192."):
        return None
    if name.endswith(".2.0.192.zen.example.org.") and int(octet) >= 200:
        gevent.sleep(SLOW_SECONDS)
    response = dns.message.make_response(query)
    if name in RECORDS:
        response.answer = [dns.rrset.from_text(asked, 60, "IN", "A", RECORDS[name])]
    else:
        response.set_rcode(dns.rcode.NXDOMAIN)
    return response.to_wire()


def run_session(smtpd: FakeSmtpd, client: Client) -> Result:
    """Play one client's whole session."""
    begun = time.monotonic()
    session = smtpd.connect(src=client.src)
    session.ehlo("client.example.net")
    if client.user:
        session.starttls()
        session.ehlo("client.example.net")
        session.auth(client.user, "secret")
    session.mail_from("sender@example.net")
    reply = session.rcpt_to("recipient@example.org")
    if reply.ok:
        reply = session.data(b"Subject: hello\r\n\r\nHello\r\n")
    session.quit()
    return Result(client, reply.lines[-1], reply.ok, time.monotonic() - begun)


def show(results: Sequence[Result]) -> None:
    """Print the table; clients of the same kind share a line."""
    print(f"{'client':<26}{'address':<16}{'seconds':>8}  reply")
    for result in {result.client.what: result for result in results}.values():
        same = sum(other.client.what == result.client.what for other in results)
        what = f"{same} x {result.client.what}" if same > 1 else result.client.what
        address = result.client.src.rpartition(":")[0].strip("[]")
        print(f"{what:<26}{address:<16}{result.seconds:>8.2f}  {result.reply}")


def main() -> int:
    """Run all sessions at once and compare."""

    def serve(question: Any, address: Any) -> None:
        if reply := answer(question):
            lists.socket.sendto(reply, address)

    lists = DatagramServer("127.0.0.1:0", serve)
    lists.start()
    resolver = f"--resolver=127.0.0.1@{lists.server_port}"
    command = [sys.executable, "-m", "greenfilter", "run", "rbl", resolver, *OPTIONS]
    print(f"greenfilter run rbl {' '.join([resolver, *OPTIONS])}")
    print(f"{len(CLIENTS)} clients at once, about three seconds ...\n")
    with FakeSmtpd(command, timeout=20.0) as smtpd:
        begun = time.monotonic()
        sessions = [smtpd.start(run_session, smtpd, client) for client in CLIENTS]
        results = [session.get() for session in sessions]
        took = time.monotonic() - begun
    lists.stop()

    show(results)
    in_turn = sum(result.seconds for result in results)
    print(f"\n{len(results)} sessions took {took:.2f} s; one after the other: {in_turn:.2f} s")
    print("The filter logged:", *smtpd.log, sep="\n  ")
    wrong = [result for result in results if result.accepted != result.client.accepted]
    for result in wrong:
        print(f"NOT AS EXPECTED: {result.client.what}: {result.reply}")
    if took > in_turn / 2:
        print("NOT AS EXPECTED: the sessions waited for each other")
    return 1 if wrong or took > in_turn / 2 else 0


if __name__ == "__main__":
    sys.exit(main())
