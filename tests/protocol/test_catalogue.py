"""The catalogue says what smtpd-filters(7) and the recordings say."""

import pytest

from greenfilter.protocol import EVENTS, EVERYTHING, NEED_EVENTS, PHASES, Need
from greenfilter.protocol._catalogue import (
    ENDS_TRANSACTION,
    STATE_OF_SESSION,
    STATE_OF_TRANSACTION,
)
from greenfilter.protocol._session import _APPLY
from tests.testing.recordings import LOGS, TRANSCRIPTS

ANSWERS = {"proceed", "reject", "disconnect"}


def _recorded(kind: bytes) -> set[str]:
    """Names that smtpd sent in lines of this kind, in any recording."""
    names = set()
    for log in LOGS:
        for line in (TRANSCRIPTS / log).read_bytes().split(b"\n"):
            parts = line.split(b"|")
            if parts[0] == b"< " + kind:
                names.add(parts[4].decode())
    return names


def test_every_recorded_phase_is_known_and_only_help_and_wiz_were_never_asked():
    known = {phase.wire for phase in PHASES.values()}
    assert known - _recorded(b"filter") == {"help", "wiz"}
    assert _recorded(b"filter") <= known


def test_every_recorded_event_is_known_and_every_known_one_was_recorded():
    # smtpd sends filter-report only on behalf of its own or another filter's report decision.
    assert _recorded(b"report") == {event.wire for event in EVENTS.values()}


@pytest.mark.parametrize("catalogue", [PHASES, EVENTS])
def test_names_are_the_wire_names_as_python_names(catalogue):
    for name, entry in catalogue.items():
        assert name == entry.name == entry.wire.replace("-", "_")
        assert name.isidentifier()


def test_phase_and_event_names_do_not_clash():
    assert not set(PHASES) & set(EVENTS)


def test_only_data_line_takes_no_decision():
    assert [name for name, phase in PHASES.items() if not phase.decisions] == ["data_line"]


@pytest.mark.parametrize("name", sorted(set(PHASES) - {"data_line"}))
def test_every_other_phase_can_be_let_through_refused_and_cut(name):
    assert PHASES[name].decisions >= ANSWERS


def test_junk_is_not_legal_at_commit_where_it_kills_smtpd():
    assert "junk" not in PHASES["commit"].decisions


def test_rewrite_is_legal_only_where_smtpd_uses_the_new_value():
    legal = {name for name, phase in PHASES.items() if "rewrite" in phase.decisions}
    assert legal == {"helo", "ehlo", "auth", "mail_from", "rcpt_to"}


def test_report_is_legal_only_where_it_does_not_replace_the_argument():
    legal = {name for name, phase in PHASES.items() if "report" in phase.decisions}
    assert legal == {"connect", "data", "commit"}


def test_every_need_names_known_events_and_all_needs_together_are_everything():
    assert set(NEED_EVENTS) == set(Need)
    wires = {event.wire for event in EVENTS.values()}
    for events in NEED_EVENTS.values():
        assert set(events) <= wires
    assert sum(need.value for need in Need) == EVERYTHING


def test_only_the_last_field_may_be_optional():
    for event in EVENTS.values():
        assert not any(field.optional for field in event.fields[:-1])


def test_state_is_told_by_the_reports_that_a_session_reads():
    told = STATE_OF_SESSION | STATE_OF_TRANSACTION
    assert told | {b"tx-reset", b"filter-response"} == set(_APPLY)
    assert not STATE_OF_SESSION & STATE_OF_TRANSACTION


def test_a_transaction_ends_by_itself_or_with_its_session():
    assert {b"tx-reset", b"link-disconnect"} == ENDS_TRANSACTION
    assert EVENTS["link_disconnect"].ends == "session"
