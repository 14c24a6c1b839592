"""Edits of a message that rspamd asks for, in the order in which its own milter does them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .verdict import Addition, Removal, Verdict

if TYPE_CHECKING:
    from ... import Headers, Message


def apply(message: Message, verdict: Verdict) -> list[str]:
    """Remove and add headers, sign, and replace the body; what is not named keeps its bytes.

    Returns:
        What could not be done.
    """
    failed = []
    for removal in _from_the_end(message.headers, verdict.removals):
        message.headers.remove(removal.name, index=removal.place)
    additions = [*verdict.additions]
    # Below the line of this host's own Received, which is the first.
    additions += [
        Addition("DKIM-Signature", value, position)
        for position, value in enumerate(verdict.signatures, 1)
    ]
    for addition in additions:
        try:
            _add(message.headers, addition)
        except ValueError as error:
            failed.append(str(error))
    if verdict.body is not None:
        message.body = verdict.body
    return failed


def mark_as_spam(message: Message, verdict: Verdict) -> None:
    """Put what marks spam on top: ``X-Spam: Yes``, which smtpd's maildir delivery goes by."""
    for name, value in [("X-Spam", "Yes"), *verdict.spam_headers]:
        message.headers.remove(name)
        message.headers.prepend(name, value)


def rewrite_subject(message: Message, subject: str) -> None:
    """Replace the subject, or give the message one."""
    message.headers.replace("Subject", subject)


def _from_the_end(headers: Headers, removals: list[Removal]) -> list[Removal]:
    """Return the removals with indexes from 0, each field once, the last first.

    So that each index still means what it meant when rspamd saw the message.
    """
    places: set[tuple[str, int]] = set()
    for name, place in removals:
        count = len(headers.get_all(name))
        if place == 0:
            places |= {(name.lower(), index) for index in range(count)}
        elif abs(place) <= count:
            places.add((name.lower(), place - 1 if place > 0 else count + place))
    return [Removal(*each) for each in sorted(places, reverse=True)]


def _add(headers: Headers, addition: Addition) -> None:
    name, value, position = addition
    count = len(headers)
    # rspamd has encoded what needs it; text of other kinds is encoded here.
    written = value.encode("ascii") if value.isascii() else value
    if position < 0:  # -1 is behind the last
        position = max(0, count + 1 + position)
    headers.insert(position, name, written)
