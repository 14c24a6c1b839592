"""ARC (RFC 8617): what those say who have handed a message on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .._dns import Questions
from .signature import Signature, SignatureProblem, parse_signature, parse_tags, wrong
from .signed import BodyForm, BodyHash, Field, relaxed

MAX_SETS = 50  # RFC 8617, 4.2.1
_NAMES = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")
_INSTANCE = re.compile(r"[ \t]*i[ \t]*=[ \t]*(\d{1,3})[ \t]*;")
_NUMBER = re.compile(r"[1-9]\d?\Z")


class ArcResult(NamedTuple):
    """What ARC says about a message.

    Attributes:
        result: none, pass or fail.
        reason: in words.
        domain: who has sealed it last.
        selector: of that seal.
        instance: number of the last seal.
    """

    result: str
    reason: str = ""
    domain: str = ""
    selector: str = ""
    instance: int = 0


class _Set(NamedTuple):
    results: Field
    message: Field
    seal: Field
    seal_tags: dict[str, str]


class ArcChain:
    """The ARC fields of a message.

    Args:
        fields: of the message.
        now: seconds since 1970.

    Attributes:
        body: form of the body that it needs, or None.
    """

    def __init__(self, fields: Sequence[Field], now: float) -> None:
        self._fields = fields
        self._problem: SignatureProblem | None = None
        self._sets: list[_Set] = []
        self._seals: list[Signature] = []
        self._message: Signature | None = None
        self.body: BodyForm | None = None
        try:
            self._sets = _find_sets(fields)
            if self._sets:
                self._read(now)
        except SignatureProblem as problem:
            self._problem = problem

    def verify(self, bodies: Mapping[BodyForm, BodyHash], questions: Questions) -> ArcResult:
        """Check the chain (RFC 8617, 5.2). Switches greenlets.

        Args:
            bodies: what the body came to in each form.
            questions: asked for keys.
        """
        last = self._seals[-1] if self._seals else None
        about = ArcResult(
            "fail",
            domain=last.domain if last else "",
            selector=last.selector if last else "",
            instance=len(self._sets),
        )
        try:
            if self._problem is not None:
                raise self._problem
            if self._message is None:
                return ArcResult("none")
            data = self._message.signed_fields(self._fields)
            self._message.verify(data, bodies, questions)
            for number in range(len(self._sets), 0, -1):
                self._seals[number - 1].verify(self._sealed(number), {}, questions)
        except SignatureProblem as problem:
            return about._replace(reason=problem.reason)
        return about._replace(result="pass")

    def _read(self, now: float) -> None:
        for number, each in enumerate(self._sets, 1):
            status = each.seal_tags.get("cv")
            if status != ("none" if number == 1 else "pass"):
                raise wrong(f"seal {number} says cv={(status or '')[:10]}")
            if "h" in each.seal_tags or "bh" in each.seal_tags:
                raise wrong(f"seal {number} has h=")
            tags = {**each.seal_tags, "c": "relaxed"}
            self._seals.append(parse_signature(each.seal, tags, now, "a b d s", dkim=False))
        newest = self._sets[-1].message
        tags = parse_tags(newest.value, "signature")
        if "h" not in tags:
            raise wrong("signature without h=")
        self._message = parse_signature(newest, tags, now, "a b bh d s", dkim=False)
        if b"arc-seal" in self._message.names:
            raise wrong("a seal is signed by the message signature")
        self.body = self._message.body

    def _sealed(self, number: int) -> bytes:
        """Return what a seal is made over, but for itself (RFC 8617, 5.1.1)."""
        fields = [field for each in self._sets[:number] for field in each[:3]]
        return b"".join([relaxed(field) + b"\r\n" for field in fields[:-1]])


def _find_sets(fields: Sequence[Field]) -> list[_Set]:
    found: dict[bytes, dict[int, Field]] = {name: {} for name in _NAMES}
    seal_tags = {}
    for field in fields:
        if field.name not in found:
            continue
        if field.name == _NAMES[0]:
            match = _INSTANCE.match(field.value.decode("latin-1"))
            number = _number(match[1] if match else "")
        else:
            tags = parse_tags(field.value, "signature")
            number = _number(tags.get("i", ""))
            if field.name == _NAMES[2]:
                seal_tags[number] = tags
        if number in found[field.name]:
            raise wrong(f"ARC field {number} occurs twice")
        found[field.name][number] = field
    results, messages, seals = found.values()
    if not results.keys() == messages.keys() == seals.keys() == set(range(1, len(seals) + 1)):
        raise wrong("ARC set is not complete")
    return [
        _Set(results[number], messages[number], seals[number], seal_tags[number])
        for number in sorted(seals)
    ]


def _number(text: str) -> int:
    if not _NUMBER.match(text) or int(text) > MAX_SETS:
        raise wrong("ARC field without a valid i=")
    return int(text)
