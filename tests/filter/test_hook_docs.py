"""help() of a decorator: parameters, types, and what is legal there."""

from __future__ import annotations

import pydoc

import pytest

from greenfilter import Filter
from greenfilter.protocol import EVENTS, PHASES

app = Filter("documented")


def test_help_of_connect_shows_parameters_types_and_decisions():
    shown = pydoc.plain(pydoc.render_doc(app.filter.connect))
    for line in (
        "def handler(ctx, rdns, address): ...",
        "rdns: str",
        "address: Address",
        "None or proceed()",
        "reject(code, text, enhanced=None)",
        "disconnect(code, text, enhanced=None)",
        "junk()",
        "report(text), smtpd 7.6 and later",
        "ctx.defer()",
        "deadline: float, seconds",
        "on_error: ",
    ):
        assert line in shown
    assert "rewrite" not in shown
    assert "outgoing" not in shown


@pytest.mark.parametrize("name", PHASES)
def test_every_phase_names_its_parameters_and_what_may_answer_it(name):
    doc = getattr(app.filter, name).__doc__
    for field in PHASES[name].fields:
        assert f"    {field.name}: " in doc
    for kind in ("reject", "junk", "rewrite", "report"):
        assert (f"    {kind}(" in doc) == (kind in PHASES[name].decisions)


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_names_its_parameters(name):
    doc = getattr(app.report, name).__doc__
    for field in EVENTS[name].fields:
        assert f"    {field.name}: " in doc
    assert "outgoing: " in doc


@pytest.mark.parametrize("name", ["lines", "message", "tap"])
def test_data_handlers_have_help_too(name):
    assert f"@app.{name}" in getattr(app, name).__doc__


def test_an_optional_field_may_be_none():
    assert "message_id: str or None" in app.report.tx_reset.__doc__
