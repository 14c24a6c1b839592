"""The lines that end the handshake."""

from greenfilter.protocol import EVENTS, PHASES, registration


def test_nothing_to_register_still_says_ready():
    assert registration([], []) == b"register|ready\n"


def test_reports_come_before_phases_and_ready_is_last():
    lines = registration(
        [("smtp-out", "tx-commit"), ("smtp-in", "tx-commit"), ("smtp-in", "link-connect")],
        ["commit", "connect"],
    )
    assert lines.splitlines() == [
        b"register|report|smtp-in|link-connect",
        b"register|report|smtp-in|tx-commit",
        b"register|report|smtp-out|tx-commit",
        b"register|filter|smtp-in|connect",
        b"register|filter|smtp-in|commit",
        b"register|ready",
    ]


def test_what_is_named_twice_is_registered_once():
    lines = registration([("smtp-in", "timeout")] * 2, ["data", "data"]).splitlines()
    assert len(lines) == len(set(lines)) == 3


def test_an_unknown_name_which_would_end_smtpd_is_not_written():
    assert registration([("smtp-in", "nonsense"), ("smtp-mid", "timeout")], ["nonsense"]) == (
        b"register|ready\n"
    )


def test_everything_can_be_registered():
    reports = [(sub, event.wire) for sub in ("smtp-in", "smtp-out") for event in EVENTS.values()]
    lines = registration(reports, [phase.wire for phase in PHASES.values()]).splitlines()
    assert len(lines) == 2 * len(EVENTS) + len(PHASES) + 1
    assert b"register|filter|smtp-out" not in b"\n".join(lines)
