"""What a filter author writes first: read a line, act on it, write the answer, flush, repeat."""

import sys

HOOKS = {
    "echo": {"filter": ["data-line"], "report": ["link-disconnect"]},
    "sessions": {
        "filter": ["connect", "ehlo", "mail-from", "rcpt-to", "data", "commit", "quit"],
        "report": [
            "link-connect",
            "link-identify",
            "link-disconnect",
            "tx-begin",
            "tx-mail",
            "tx-rcpt",
            "tx-commit",
            "tx-rollback",
        ],
    },
}


def proceed(session, *fields):
    """The callback of a request."""


def main(role):
    """Register the hooks of ``role``, then serve smtpd until it closes the pipe."""
    for line in sys.stdin:
        if line == "config|ready\n":
            break
    for kind, names in HOOKS[role].items():
        for name in names:
            print(f"register|{kind}|smtp-in|{name}")
    print("register|ready", flush=True)

    sessions = {}
    for line in sys.stdin:
        kind, _, _, _, name, sid, rest = line.rstrip("\n").split("|", 6) + [""] * (
            line.count("|") < 6
        )
        session = sessions.setdefault(sid, {})
        if kind == "report":
            session[name] = rest.split("|")
            if name == "link-disconnect":
                del sessions[sid]
        elif name == "data-line":
            token, text = rest.split("|", 1)
            print(f"filter-dataline|{sid}|{token}|{text}", flush=True)
        else:
            token, *fields = rest.split("|")
            proceed(session, *fields)
            print(f"filter-result|{sid}|{token}|proceed", flush=True)


main(sys.argv[1])
