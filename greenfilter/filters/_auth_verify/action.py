"""What is done with a message, as the options say, once it was verified."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, NamedTuple

from ... import reject
from .._clients import is_in

if TYPE_CHECKING:
    from ... import Decision
    from .check import Envelope, Verdict


class Action(NamedTuple):
    """What is done with a message: ``what`` is header, junk, defer or reject."""

    what: str
    reason: str | None = None
    decision: Decision | None = None


def choose(verdict: Verdict, envelope: Envelope, options: argparse.Namespace) -> Action:
    """Choose what is done: of all that the options ask for, the strictest."""
    if is_in(envelope.ip, options.forwarder):
        return Action("header", "forwarder")
    actions = [
        _by_dmarc(verdict, options),
        _by_number_of_authors(verdict, options),
        _by_from(verdict, options),
        _by_spf(verdict, envelope, options),
        _by_temperror(verdict, options),
    ]
    order = ("header", "junk", "defer", "reject")
    return max(actions, key=lambda action: order.index(action.what))


def _by_dmarc(verdict: Verdict, options: argparse.Namespace) -> Action:
    dmarc = verdict.dmarc
    if dmarc.result != "fail" or dmarc.policy == "none" or options.enforce == "header":
        return Action("header")
    if dmarc.policy == "quarantine" or options.enforce == "junk":
        return Action("junk", "dmarc")
    text = (
        f"Mail from {dmarc.author_domain} refused by the DMARC policy of {dmarc.record_domain}:"
        f" {dmarc.reason or _why(verdict)}"
    )
    return Action("reject", "dmarc", reject(550, text, enhanced="5.7.1"))


def _by_number_of_authors(verdict: Verdict, options: argparse.Namespace) -> Action:
    """Treat authors whose policies were not asked for as if the strictest were among them."""
    if not verdict.dmarc.unchecked or options.enforce == "header":
        return Action("header")
    text = f"It cannot be checked who wrote this mail: {verdict.dmarc.reason}"
    return _as_asked(options.enforce, "authors", text)


def _why(verdict: Verdict) -> str:
    """Say in words why no identifier was the author's."""
    passed = [each.domain for each in verdict.dkim if each.result == "pass"]
    failed = [f"{each.result} for {each.domain}" for each in verdict.dkim if each.result != "pass"]
    dkim = f"pass for {passed[0]} only" if passed else failed[0] if failed else "none"
    spf = f"{verdict.spf.result} for {verdict.spf.domain}" if verdict.spf.domain else "none"
    return re.sub(r"[^ -~]", "?", f"SPF {spf}, DKIM {dkim}")[:300]


def _by_from(verdict: Verdict, options: argparse.Namespace) -> Action:
    if not verdict.bad_from or options.bad_from == "header":
        return Action("header")
    text = re.sub(r"[^ -~]", "?", verdict.dmarc.reason or "no domain in From")[:200]
    return _as_asked(options.bad_from, "from", f"It is not clear who wrote this mail: {text}")


def _by_spf(verdict: Verdict, envelope: Envelope, options: argparse.Namespace) -> Action:
    failed = verdict.spf.result == "fail" and verdict.dmarc.result != "pass"
    if not failed or options.spf_fail == "header":
        return Action("header")
    text = f"{envelope.ip} may not send mail for {verdict.spf.domain} (SPF)"
    return _as_asked(options.spf_fail, "spf", text, "5.7.23")


def _as_asked(what: str, reason: str, text: str, enhanced: str = "5.7.1") -> Action:
    """Return what an option says: reject, with a text for the client, or junk."""
    refused = reject(550, text, enhanced=enhanced) if what == "reject" else None
    return Action(what, reason, refused)


def _by_temperror(verdict: Verdict, options: argparse.Namespace) -> Action:
    unknown = verdict.dmarc.result == "temperror" or (
        options.spf_fail != "header" and verdict.spf.result == "temperror"
    )
    if not unknown or not options.defer_temperror:
        return Action("header")
    text = "Your mail could not be checked, as DNS does not answer; try again"
    return Action("defer", "temperror", reject(451, text, enhanced="4.4.3"))
