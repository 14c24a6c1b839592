"""All checks of one message: what it needs is read first, then DNS is asked for all at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

import gevent

from .arc import ArcChain, ArcResult
from .dkim import DkimResult, find_signatures
from .dmarc import Dmarc, Evaluation, Identifier
from .sender import SpfResult, check_sender
from .signed import BodyForm, BodyHash, split_fields

if TYPE_CHECKING:
    from ... import Message
    from .._clients import Ip
    from .._dns import Questions
    from .domains import SuffixList


class Envelope(NamedTuple):
    """Who hands in a message: the client's address, its envelope sender and its HELO name."""

    ip: Ip
    mail_from: str
    helo: str


class Verdict(NamedTuple):
    """What all checks say about a message.

    Attributes:
        spf: of its sender.
        dkim: of its signatures, from the top.
        dmarc: of its author.
        arc: of those who handed it on, or None if it was not asked for.
        bad_from: From does not name one domain, in one field.
    """

    spf: SpfResult
    dkim: list[DkimResult]
    dmarc: Dmarc
    arc: ArcResult | None
    bad_from: bool


class Check:
    """One message. Reads all that is needed of it, which lets others have their turn.

    Args:
        message: is not changed.
        arc: whether ARC is verified.
        now: seconds since 1970; by default the time.
    """

    def __init__(self, message: Message, *, arc: bool = False, now: float | None = None) -> None:
        now = time.time() if now is None else now
        self._fields = split_fields(bytes(message.headers))
        self._signatures = find_signatures(self._fields, now)
        self._chain = ArcChain(self._fields, now) if arc else None
        forms = [each.body for each in self._signatures]
        if self._chain is not None:
            forms.append(self._chain.body)
        self._bodies = _hash_body(message, forms)

    def conclude(
        self,
        envelope: Envelope,
        questions: Callable[[], Questions],
        suffixes: SuffixList | None = None,
    ) -> Verdict:
        """Ask DNS, and judge. Switches greenlets.

        Args:
            envelope: who hands it in.
            questions: makes what may be asked, anew for each check and author: none can use up
                the limits of another, else a stranger's SPF record could keep us from his victim's
                policy.
            suffixes: decides what an organization is.
        """
        values = [field.value for field in self._fields if field.name == b"from"]
        froms = [value.decode("utf-8", "surrogateescape") for value in values]
        evaluation = Evaluation(froms, questions, suffixes)
        sender = gevent.spawn(check_sender, *envelope, questions())
        keys = questions()
        signatures = [
            gevent.spawn(each.verify, self._fields, self._bodies, keys) for each in self._signatures
        ]
        chains = [self._chain] if self._chain is not None else []
        seals = [gevent.spawn(each.verify, self._bodies, keys) for each in chains]
        author = gevent.spawn(evaluation.discover)
        try:
            spf = sender.get()
            dkim = [each.get() for each in signatures]
            arc = seals[0].get() if seals else None
            author.get()
        finally:
            gevent.killall([sender, author, *signatures, *seals], block=False)
        identifiers = [Identifier("dkim", each.domain, each.result) for each in dkim]
        identifiers.append(Identifier("spf", spf.domain, spf.result))
        dmarc = evaluation.conclude(identifiers)
        return Verdict(spf, dkim, dmarc, arc, evaluation.is_malformed)


def _hash_body(message: Message, forms: Iterable[BodyForm | None]) -> dict[BodyForm, BodyHash]:
    bodies = {form: BodyHash(form) for form in forms if form is not None}
    in_body = False
    for lines in message.lines() if bodies else ():
        if not in_body:
            if b"" not in lines:
                continue
            in_body, lines = True, lines[lines.index(b"") + 1 :]
        for body in bodies.values():
            body.update(lines)
        gevent.sleep(0)
    return bodies
