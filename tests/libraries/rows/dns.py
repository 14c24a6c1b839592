"""Name servers, and what asks them: SPF, DKIM, DMARC."""

from ..row import Row, Verdict

_RESOLVER = """
import dns.resolver

dns.resolver.default_resolver = R = dns.resolver.Resolver(configure=False)
R.nameservers, R.port = ["127.0.0.1"], $dns
"""
_MESSAGE = _RESOLVER + 'MESSAGE = open("$work/msg.eml", "rb").read()\n'
_QUERY = """
import dns.message
import dns.query

Q = dns.message.make_query("example.com", "TXT")
"""

ROWS = (
    Row(
        "dnspython_udp",
        _RESOLVER,
        'assert "v=spf1" in str(dns.resolver.resolve("example.com", "TXT")[0])',
    ),
    Row(
        "dnspython_tcp",
        _RESOLVER,
        'assert "v=spf1" in str(dns.resolver.resolve("example.com", "TXT", tcp=True)[0])',
    ),
    Row(
        "dnspython_dot",
        _QUERY,
        """
        reply = dns.query.tls(Q, "127.0.0.1", port=$dns_tls, verify="$work/cert.pem", timeout=20)
        assert reply.answer
        """,
    ),
    Row(
        "dnspython_doh",
        _QUERY,
        """
        reply = dns.query.https(
            Q, "https://127.0.0.1:$https/dns-query", verify="$work/cert.pem", timeout=20
        )
        assert reply.answer
        """,
    ),
    Row(
        "dnspython_async",
        """
        import asyncio
        import dns.asyncresolver

        async def ask():
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.nameservers, resolver.port = ["127.0.0.1"], $dns
            return await resolver.resolve("example.com", "TXT")
        """,
        'assert "v=spf1" in str(asyncio.run(ask())[0])',
    ),
    Row(
        "pyspf_dnspython",
        _RESOLVER + "import spf\n",
        'assert spf.check2("192.0.2.1", "a@example.com", "mx.example.com")[0] == "pass"',
    ),
    Row(
        "pyspf_py3dns",
        """
        import DNS

        DNS.defaults["server"], DNS.defaults["port"] = ["127.0.0.1"], $dns
        """,
        'assert DNS.DnsRequest("example.com", qtype="TXT", timeout=20).req().answers',
    ),
    Row("dkimpy_verify", _MESSAGE + "import dkim\n", "assert dkim.verify(MESSAGE)"),
    Row("dkimpy_class", _MESSAGE + "import dkim\n", "assert dkim.DKIM(MESSAGE).verify()"),
    Row(
        "dkimpy_sign",
        _MESSAGE + 'import dkim\nKEY = open("$work/key.pem", "rb").read()\n',
        'assert dkim.sign(MESSAGE, b"sel", b"example.com", KEY)',
        plain=Verdict.COMPUTES,
    ),
    Row(
        "authheaders",
        _MESSAGE + "import authheaders\n",
        """
        result = authheaders.authenticate_message(MESSAGE, "mx.example.org", dmarc=False)
        assert "dkim=pass" in result
        """,
    ),
)
