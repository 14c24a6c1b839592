"""Slow servers on free loopback ports: ``python -m tests.libraries.slow DIRECTORY [NAME=PORT]...``.

Each waits once in a connection or request for ``SECONDS``. A ``NAME=PORT`` puts a relay that is
as slow before a real server. Prints the ports as one line of JSON, then serves until it is killed.
"""

from gevent import monkey

monkey.patch_all()

import fcntl  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from dnslib import MX, QTYPE, RCODE, RR, TXT, A, DNSRecord  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from gevent.server import DatagramServer, StreamServer  # noqa: E402

from . import SECONDS  # noqa: E402

_HOST = "127.0.0.1"
_BUCKETS = (
    b'<?xml version="1.0"?><ListAllMyBucketsResult><Buckets><Bucket><Name>ok</Name></Bucket>'
    b"</Buckets></ListAllMyBucketsResult>"
)


class Dns:
    """The names that the SPF, DKIM and DMARC rows look up."""

    def __init__(self, dkim_key):
        self.texts = {
            "example.com": "v=spf1 ip4:192.0.2.0/24 -all",
            "_dmarc.example.com": "v=DMARC1; p=reject",
            "sel._domainkey.example.com": "v=DKIM1; k=rsa; p=" + dkim_key,
        }

    def answer(self, packet):
        question = DNSRecord.parse(packet)
        name, kind = question.q.qname, QTYPE[question.q.qtype]
        gevent.sleep(SECONDS)
        reply = question.reply()
        if kind == "TXT":
            text = self.texts.get(str(name).rstrip(".").lower(), "").encode()
            if text:
                parts = [text[i : i + 200] for i in range(0, len(text), 200)]
                reply.add_answer(RR(name, QTYPE.TXT, rdata=TXT(parts)))
            else:
                reply.header.rcode = RCODE.NXDOMAIN
        elif kind == "A":
            reply.add_answer(RR(name, QTYPE.A, rdata=A("127.0.0.2")))
        elif kind == "MX":
            reply.add_answer(RR(name, QTYPE.MX, rdata=MX("mx.example.com", 10)))
        return reply.pack()

    def tcp(self, connection, _):
        with connection.makefile("rb") as stream:
            while len(size := stream.read(2)) == 2:
                reply = self.answer(stream.read(int.from_bytes(size, "big")))
                connection.sendall(len(reply).to_bytes(2, "big") + reply)

    def http(self, environ, start_response):
        body = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/dns-query":
            start_response("200 OK", [("Content-Type", "application/dns-message")])
            return [self.answer(body)]
        gevent.sleep(SECONDS)
        amazon = environ["PATH_INFO"] == "/" and "HTTP_X_AMZ_DATE" in environ
        kind = "application/xml" if amazon else "text/plain"
        start_response("200 OK", [("Content-Type", kind)])
        return [_BUCKETS if amazon else b"ok"]


class _Udp(DatagramServer):
    def __init__(self, address, dns):
        super().__init__(address)
        self.dns = dns

    def handle(self, data, address):
        gevent.spawn(lambda: self.socket.sendto(self.dns.answer(data), address))


def _relay(port):
    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side is gone

    def handle(client, _):
        gevent.sleep(SECONDS)
        with socket.create_connection((_HOST, port)) as server:
            back = gevent.spawn(pump, server, client)
            pump(client, server)
            back.join()

    return handle


def _dialogue(greeting, reply):
    """Return a handler that greets late, and answers lines until ``reply`` says goodbye."""

    def handle(connection, _):
        gevent.sleep(SECONDS)
        try:
            connection.sendall(greeting)
            for line in connection.makefile("rb"):
                answer, is_last = reply(line.strip())
                connection.sendall(answer)
                if is_last:
                    return
        except OSError:
            pass  # the client did not wait

    return handle


def _smtp():
    in_data = []

    def reply(line):
        if line.upper() == b"DATA":
            in_data.append(True)
            return b"354 go on\r\n", False
        if line == b".":
            in_data.clear()
        elif in_data:
            return b"", False
        is_last = line.upper() == b"QUIT"
        return (b"221 bye\r\n" if is_last else b"250 ok\r\n"), is_last

    return reply


def _imap(line):
    tag, command, *_ = line.split()
    extra = {b"CAPABILITY": b"* CAPABILITY IMAP4REV1\r\n", b"LOGOUT": b"* BYE\r\n"}
    return extra.get(command.upper(), b"") + tag + b" OK done\r\n", command.upper() == b"LOGOUT"


def _pop3(line):
    return b"+OK 0 0\r\n", line.upper() == b"QUIT"


def _ftp(line):
    known = {b"USER": b"230 in\r\n", b"QUIT": b"221 bye\r\n"}
    command = line[:4].upper()
    return known.get(command, b"200 ok\r\n"), command == b"QUIT"


def _echo(connection, _):
    for _ in connection.makefile("rb"):
        gevent.sleep(SECONDS)
        connection.sendall(b"ok\n")


def _silent(connection, _):
    try:
        while connection.recv(65536):
            pass
    except OSError:
        pass


def _holder(directory):
    """Return a handler that locks the file it is told the name of, for a while."""

    def hold(file):
        with file:
            gevent.sleep(SECONDS)

    def handle(connection, _):
        name = connection.makefile("rb").readline().decode().strip()
        file = (directory / name).open("w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gevent.spawn(hold, file)
        connection.sendall(b"held\n")

    return handle


def _smtp_server(connection, address):
    _dialogue(b"220 slow\r\n", _smtp())(connection, address)


def main(directory, relays):
    dns = Dns((directory / "dkim.pub").read_text().strip())
    tls = {"keyfile": directory / "key.pem", "certfile": directory / "cert.pem"}
    any_port = (_HOST, 0)
    servers = {
        "dns": StreamServer(any_port, dns.tcp),
        "dns_tls": StreamServer(any_port, dns.tcp, **tls),
        "http": WSGIServer(any_port, dns.http, log=None),
        "https": WSGIServer(any_port, dns.http, log=None, **tls),
        "smtp": StreamServer(any_port, _smtp_server),
        "imap": StreamServer(any_port, _dialogue(b"* OK slow\r\n", _imap)),
        "pop3": StreamServer(any_port, _dialogue(b"+OK slow\r\n", _pop3)),
        "ftp": StreamServer(any_port, _dialogue(b"220 slow\r\n", _ftp)),
        "echo": StreamServer(any_port, _echo),
        "echo_tls": StreamServer(any_port, _echo, **tls),
        "silent": StreamServer(any_port, _silent),
        "holder": StreamServer(any_port, _holder(directory)),
    }
    for text in relays:
        name, _, port = text.partition("=")
        servers[name] = StreamServer(any_port, _relay(int(port)))
    for server in servers.values():
        server.start()
    udp = _Udp((_HOST, servers["dns"].server_port), dns)
    udp.start()
    print(json.dumps({name: server.server_port for name, server in servers.items()}), flush=True)
    gevent.get_hub().join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
