"""Show what becomes of signed and of forged mail: ``python examples/demo_mail.py``.

The stock filter dkim_sign signs what a user sends; auth_verify sees that mail come in, then the
same with another text, then a forged one. Needs no mail server and no network: greenfilter.testing
plays smtpd, and DNS is a server on loopback. Ends with status 1 if something else came out.
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from gevent.server import DatagramServer

from greenfilter.testing import FakeSmtpd, Reply

MAIL = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: lunch\r\n\r\nAt noon?\r\n"
)
RECORDS = {
    "example.org.": "v=spf1 ip4:192.0.2.25 -all",
    "_dmarc.example.org.": "v=DMARC1; p=reject",
}


def answer(question: bytes) -> bytes:
    """Return what the DNS server answers: what example.org publishes."""
    query = dns.message.from_wire(question)
    asked = query.question[0]
    response = dns.message.make_response(query)
    text = RECORDS.get(asked.name.to_text())
    if text is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif asked.rdtype == dns.rdatatype.TXT:
        response.answer = [dns.rrset.from_text(asked.name, 60, "IN", "TXT", f'"{text}"')]
    return response.to_wire()


def make_key(directory: str) -> str:
    """Make a key, publish its public half, and return the option for dkim_sign."""
    key = ed25519.Ed25519PrivateKey.generate()
    path = Path(directory, "k1.pem")
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    RECORDS["k1._domainkey.example.org."] = f"v=DKIM1; k=ed25519; p={public}"
    return f"--key=example.org:k1:{path}"


def send(options: list[str], mail: bytes, src: str, *, user: str = "") -> tuple[Reply, bytes]:
    """Send a message through a filter; return the reply and what was delivered."""
    command = [sys.executable, "-m", "greenfilter", "run", *options]
    with FakeSmtpd(command, timeout=20.0) as smtpd:
        session = smtpd.connect(src=src)
        session.ehlo("mx.example.org")
        if user:
            session.starttls()
            session.ehlo("mx.example.org")
            session.auth(user, "secret")
        session.mail_from("alice@example.org")
        session.rcpt_to("bob@example.net")
        reply = session.data(mail)
        session.quit()
        return reply, b"".join(message.data for message in smtpd.messages)


def show(what: str, reply: Reply, mail: bytes, field: str, expected: str) -> bool:
    """Print what became of a message; return whether it is what was expected."""
    print(f"\n{what}\n  {reply.lines[-1]}")
    head = mail.partition(b"\r\n\r\n")[0].decode()
    fields = head.replace("\r\n\t", "\r\n ").split("\r\n")
    shown = False
    for line in fields:
        shown = line.startswith(f"{field}:") or (shown and line.startswith(" "))
        if shown:
            print(f"  {line}")
    unfolded = " ".join(f"{reply.lines[-1]} {head}".split())
    if expected not in unfolded:
        print(f"NOT AS EXPECTED: there is no {expected!r}")
    return expected in unfolded


def main() -> int:
    """Sign a message, and verify it and two forged ones."""

    def serve(question: Any, address: Any) -> None:
        server.socket.sendto(answer(question), address)

    server = DatagramServer("127.0.0.1:0", serve)
    server.start()
    with tempfile.TemporaryDirectory() as directory:
        sign = ["dkim_sign", make_key(directory)]
        verify = ["auth_verify", "--enforce=reject", "--authserv-id=mx.example.net"]
        verify.append(f"--resolver=127.0.0.1@{server.server_port}")
        print(f"greenfilter run {' '.join(sign)}\ngreenfilter run {' '.join(verify)}")
        reply, signed = send(sign, MAIL, "198.51.100.7:4000", user="alice")
        ours = show("sent by alice", reply, signed, "DKIM-Signature", "a=ed25519-sha256")
        signed = signed[signed.index(b"DKIM-Signature:") :]
        header = "Authentication-Results"
        reply, mail = send(verify, signed, "203.0.113.5:4000")
        good = show("handed on by a list", reply, mail, header, "dmarc=pass")
        changed = signed.replace(b"noon", b"midnight")
        reply, mail = send(verify, changed, "203.0.113.5:4000")
        bad = show("changed by the list", reply, mail, header, "550 5.7.1 Mail from example.org")
        reply, mail = send(verify, MAIL, "203.0.113.66:4000")
        forged = show("forged", reply, mail, header, "550 5.7.1 Mail from example.org")
    server.stop()
    return 0 if ours and good and bad and forged else 1


if __name__ == "__main__":
    sys.exit(main())
