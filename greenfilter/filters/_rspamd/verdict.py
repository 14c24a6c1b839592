"""What rspamd answered, checked: whatever comes over the wire, a Verdict has the right types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from .._servers import ServiceError
from .http import Response

_NAME = re.compile(r"[!-9;-~]{1,256}")
_LINE_END = re.compile(r"\r\n?|\n")
_LAST: Final = -1


class Addition(NamedTuple):
    """A header to add.

    Attributes:
        name: of the field.
        value: lines after the first begin with white space.
        position: among all fields, 0 is the top; a negative one counts from the end, -1 is behind
            the last.
    """

    name: str
    value: str
    position: int = _LAST


class Removal(NamedTuple):
    """Headers to remove: of those of this name the first (1), the last (-1) or all (0)."""

    name: str
    place: int


@dataclass(slots=True)
class Verdict:
    """What rspamd wants done.

    Attributes:
        action: in rspamd's words, such as ``add header``.
        score: of the message.
        required: the score from which it is refused.
        symbols: names of what matched, the heaviest first.
        subject: for ``rewrite subject``, encoded.
        smtp_message: for the client, where it is refused.
        removals: done first.
        additions: in order.
        signatures: values of DKIM-Signature.
        spam_headers: what marks spam, where that is not ``X-Spam: Yes``.
        no_action: act on the headers only.
        instead_of_reject: ``discard``, ``quarantine`` or "".
        envelope: changes of the envelope, for the log.
        body: what replaces the message's body.
        faults: what made no sense in the answer, and was left out.
    """

    action: str
    score: float = 0.0
    required: float = 0.0
    symbols: list[str] = field(default_factory=list)
    subject: str | None = None
    smtp_message: str | None = None
    removals: list[Removal] = field(default_factory=list)
    additions: list[Addition] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    spam_headers: list[tuple[str, str]] = field(default_factory=list)
    no_action: bool = False
    instead_of_reject: str = ""
    envelope: list[str] = field(default_factory=list)
    body: bytes | None = None
    faults: list[str] = field(default_factory=list)


def read(response: Response) -> Verdict:
    """Read an answer to checkv2.

    Raises:
        ServiceError: it is an error, or makes no sense as a whole.
    """
    text, body = _split(response)
    try:
        answer = json.loads(text.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        answer = None
    if response.status != 200:
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise ServiceError(f"answered {response.status}: {_short(reason or text)}")
    if not isinstance(answer, dict):
        raise ServiceError(f"answered no JSON object: {_short(text)}")
    action = answer.get("action")
    if not isinstance(action, str):
        raise ServiceError(f"answered without an action: {_short(answer.get('error') or text)}")
    verdict = Verdict(action.lower(), body=body)
    verdict.score = _number(answer.get("score"))
    verdict.required = _number(answer.get("required_score"))
    verdict.symbols = _symbols(answer.get("symbols"))
    verdict.subject = _text(answer.get("subject"))
    messages = answer.get("messages")
    if isinstance(messages, dict):
        verdict.smtp_message = _text(messages.get("smtp_message"))
    verdict.signatures = [
        fold(value) for value in _listed(answer.get("dkim-signature")) if isinstance(value, str)
    ]
    milter = answer.get("milter")
    if isinstance(milter, dict):
        _read_milter(milter, verdict)
    elif milter:
        verdict.faults.append("milter is not an object")
    return verdict


def fold(value: str) -> str:
    """Return a value of a header that cannot become another header, whatever it is.

    Lines after the first begin with white space, and none is blank.
    """
    lines = _LINE_END.split(value.replace("\0", ""))
    lines = [lines[0].strip(" \t"), *(line.rstrip(" \t") for line in lines[1:])]
    folded = [line if line[0] in " \t" else "\t" + line for line in lines[1:] if line]
    return "\r\n".join([lines[0], *folded]) if lines[0] else "\r\n".join(folded).lstrip(" \t")


def _split(response: Response) -> tuple[bytes, bytes | None]:
    """Cut the new body off; where it begins is in Message-Offset."""
    offset = response.headers.get("message-offset")
    if offset is None:
        return response.body, None
    if not re.fullmatch(r"\d{1,18}", offset) or int(offset) > len(response.body):
        raise ServiceError(f"answered Message-Offset {_short(offset)}, which is nowhere")
    return response.body[: int(offset)], response.body[int(offset) :]


def _read_milter(milter: dict[str, Any], verdict: Verdict) -> None:
    verdict.no_action = milter.get("no_action") is True
    instead = milter.get("reject")
    verdict.instead_of_reject = instead if instead in ("discard", "quarantine") else ""
    verdict.envelope = list(_envelope(milter))
    for name, value in _fields(milter, "remove_headers", verdict):
        for index in _listed(value):
            if isinstance(index, bool) or not isinstance(index, int):
                verdict.faults.append(f"remove_headers: {name}: {_short(index)} is not a number")
            else:
                verdict.removals.append(Removal(name, index))
    for name, value in _fields(milter, "add_headers", verdict):
        for each in _listed(value):
            _read_addition(name, each, verdict)
    spam = milter.get("spam_header")
    if isinstance(spam, str):
        verdict.spam_headers = [("X-Spam", fold(spam))]
    elif spam is not None:
        verdict.spam_headers = [
            (name, fold(value))
            for name, value in _fields(milter, "spam_header", verdict)
            if isinstance(value, str)
        ]


def _read_addition(name: str, value: Any, verdict: Verdict) -> None:
    position: Any = _LAST
    if isinstance(value, dict):
        position = value.get("order", value.get("index", _LAST))
        value = value.get("value")
    if isinstance(position, float) and position.is_integer():
        position = int(position)
    if not isinstance(value, str) or isinstance(position, bool) or not isinstance(position, int):
        verdict.faults.append(f"add_headers: {name}: {_short(value)} is not a value")
        return
    verdict.additions.append(Addition(name, fold(value), position))


def _fields(milter: dict[str, Any], key: str, verdict: Verdict) -> Iterator[tuple[str, Any]]:
    """Return the names and values of an object whose keys are names of headers."""
    found = milter.get(key) or {}  # an empty table of Lua is an array
    if not isinstance(found, dict):
        verdict.faults.append(f"{key} is not an object")
        return
    for name, value in found.items():
        if _NAME.fullmatch(name):
            yield name, value
        else:
            verdict.faults.append(f"{key}: {_short(name)} is not a header name")


def _envelope(milter: dict[str, Any]) -> Iterator[str]:
    for key in ("change_from", "add_rcpt", "del_rcpt"):
        for address in _listed(milter.get(key)):
            if address is not None:
                yield f"{key}={address}"


def _symbols(found: Any) -> list[str]:
    """Return the symbols of an object or, with older versions, a list."""
    if isinstance(found, list):
        found = {str(each.get("name")): each for each in found if isinstance(each, dict)}
    if not isinstance(found, dict):
        return []
    scores = {
        str(name): abs(_number(symbol.get("score"))) if isinstance(symbol, dict) else 0.0
        for name, symbol in found.items()
    }
    return sorted(scores, key=lambda name: -scores[name])


def _listed(value: Any) -> list[Any]:
    """Return a list, or what stands for a list of one."""
    if isinstance(value, list):
        return value
    return [] if value is None else [value]


def _number(value: Any) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if good and abs(value) < 1e12 else 0.0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _short(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    text = " ".join(text.split())
    return repr(text if len(text) <= 120 else text[:120] + "...")
