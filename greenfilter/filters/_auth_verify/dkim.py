"""DKIM (RFC 6376, 8301, 8463, 8616): the signatures of a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .._dns import Questions
from .signature import Signature, SignatureProblem, parse_signature, parse_tags, wrong
from .signed import BodyForm, BodyHash, Field

MAX_SIGNATURES = 10  # that are verified; each costs a question and some computing
_REQUIRED = "v a b bh d h s"


class DkimResult(NamedTuple):
    """What became of a signature; texts are as far as they are known, and as they were written.

    Attributes:
        result: a word of RFC 8601, 2.7.1.
        reason: in words, "" where there is nothing to say.
        domain: d=, in A-labels where it is a name.
        selector: s=.
        algorithm: a=.
        value: b=, without white space.
    """

    result: str
    reason: str = ""
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    value: str = ""


class DkimSignature:
    """A DKIM-Signature field.

    Args:
        field: itself.
        now: seconds since 1970.

    Attributes:
        body: form of the body that it needs, or None if it cannot be right anyway.
    """

    def __init__(self, field: Field, now: float) -> None:
        self._about = DkimResult("permerror")
        self._problem: SignatureProblem | None = None
        self._signature: Signature | None = None
        self.body: BodyForm | None = None
        try:
            self._read(field, now)
        except SignatureProblem as problem:
            self._problem = problem

    def verify(
        self,
        fields: Sequence[Field],
        bodies: Mapping[BodyForm, BodyHash],
        questions: Questions,
    ) -> DkimResult:
        """Check the signature. Switches greenlets.

        Args:
            fields: of the message.
            bodies: what the body came to in each form.
            questions: asked for the key.
        """
        try:
            if self._problem is not None:
                raise self._problem
            assert self._signature is not None
            data = self._signature.signed_fields(fields)
            remark = self._signature.verify(data, bodies, questions)
            return self._about._replace(result="pass", reason=remark)
        except SignatureProblem as problem:
            return self._about._replace(result=problem.result, reason=problem.reason)

    def _read(self, field: Field, now: float) -> None:
        tags = parse_tags(field.value, "signature")
        names = (tags.get(name, "") for name in ("d", "s", "a", "b"))
        domain, selector, algorithm, value = names
        self._about = DkimResult(
            "permerror", "", domain, selector, algorithm, "".join(value.split())
        )
        if tags.get("v") != "1":
            raise wrong("unknown version of signature" if "v" in tags else "signature without v=")
        signature = parse_signature(field, tags, now, _REQUIRED, dkim=True)
        self._about = self._about._replace(domain=signature.domain, selector=signature.selector)
        if b"from" not in signature.names:
            raise wrong("From field not signed")
        if "dns/txt" not in [item.strip() for item in tags.get("q", "dns/txt").split(":")]:
            raise wrong("unknown query method")
        self._signature, self.body = signature, signature.body


def find_signatures(fields: Sequence[Field], now: float) -> list[DkimSignature]:
    """Read the signatures of a message, from the top, at most as many as are verified."""
    found = [field for field in fields if field.name == b"dkim-signature"]
    return [DkimSignature(field, now) for field in found[:MAX_SIGNATURES]]
