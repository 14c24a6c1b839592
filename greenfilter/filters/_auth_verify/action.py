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
    refused = reject(550, text, enhanced="5.7.1")
    return Action(options.enforce, "authors", refused if options.enforce == "reject" else None)


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
    refused = reject(550, f"It is not clear who wrote this mail: {text}", enhanced="5.7.1")
    return Action(options.bad_from, "from", refused if options.bad_from == "reject" else None)


def _by_spf(verdict: Verdict, envelope: Envelope, options: argparse.Namespace) -> Action:
    failed = verdict.spf.result == "fail" and verdict.dmarc.result != "pass"
    if not failed or options.spf_fail == "header":
        return Action("header")
    text = f"{envelope.ip} may not send mail for {verdict.spf.domain} (SPF)"
    refused = reject(550, text, enhanced="5.7.23")
    return Action(options.spf_fail, "spf", refused if options.spf_fail == "reject" else None)


def _by_temperror(verdict: Verdict, options: argparse.Namespace) -> Action:
    unknown = verdict.dmarc.result == "temperror" or (
        options.spf_fail != "header" and verdict.spf.result == "temperror"
    )
    if not unknown or not options.defer_temperror:
        return Action("header")
    text = "Your mail could not be checked, as DNS does not answer; try again"
    return Action("defer", "temperror", reject(451, text, enhanced="4.4.3"))
