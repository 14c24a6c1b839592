"""DMARC records (RFC 9989, 4): what domains publish, and whose policy holds for an author."""

from __future__ import annotations

import re
from typing import NamedTuple

from .._dns import DnsError, Questions
from .domains import SuffixList

MAX_WALK = 8  # labels, and with them questions (RFC 9989, 4.10)
POLICIES = ("none", "quarantine", "reject")  # from the mildest on

_RECORD = re.compile(r"v[ \t]*=[ \t]*DMARC1[ \t]*(;|\Z)")
_URI = re.compile(r"[a-z][a-z0-9+.-]*:[^\s,]+\Z", re.IGNORECASE)


class Record(NamedTuple):
    """A DMARC record. ``problem`` tells why it cannot be used, "" if it can (RFC 9989, 4.10.1)."""

    p: str
    sp: str
    np: str
    psd: str
    strict_dkim: bool
    strict_spf: bool
    testing: bool
    problem: str = ""


class Policy(NamedTuple):
    """The record that holds for an author.

    Attributes:
        author: domain.
        domain: where the record is.
        record: itself.
        policy: that is to be applied when a message fails.
        organization: the author's organizational domain, or None if it was not asked for.
    """

    author: str
    domain: str
    record: Record
    policy: str
    organization: str | None


def parse_record(text: str) -> Record | None:
    """Read a TXT record; None if it is not a DMARC record (RFC 9989, 4.7 and 4.8)."""
    if not _RECORD.match(text):
        return None
    tags: dict[str, str] = {}
    for part in text.split(";")[1:]:
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip(" \t").lower(), value.strip(" \t"))
    word = {name: value.lower() for name, value in tags.items()}
    policies = [word.get(name, "none" if name == "p" else "") for name in ("p", "sp", "np")]
    problem = ""
    wrong = [
        name
        for name, value in zip(("p", "sp", "np"), policies, strict=True)
        if name in tags and value not in POLICIES
    ]
    if wrong:
        # Who wants reports is taken to want no more than these (4.10.1).
        policies = ["none", "", ""]
        if not _has_uri(tags.get("rua", "")):
            problem = f"{wrong[0]}={tags[wrong[0]][:40]} is not a policy"
    p, sp, np = policies
    return Record(
        p,
        sp,
        np,
        psd=word.get("psd", "u"),
        strict_dkim=word.get("adkim") == "s",
        strict_spf=word.get("aspf") == "s",
        testing=word.get("t") == "y",
        problem=problem,
    )


def _has_uri(value: str) -> bool:
    return any(_URI.match(uri.strip(" \t")) for uri in value.split(","))


def record_at(domain: str, questions: Questions) -> Record | None:
    """Ask for the record of a domain; None if it has none, or several (RFC 9989, 4.10)."""
    texts = (text.decode("utf-8", "replace") for text in questions.texts(f"_dmarc.{domain}"))
    records = [record for record in map(parse_record, texts) if record is not None]
    return records[0] if len(records) == 1 else None


# --- discovery ---


def walk(domain: str, questions: Questions) -> dict[str, Record]:
    """Find the records of a domain and those above it, the longest name first (RFC 9989, 4.10)."""
    found = {}
    labels = domain.split(".")
    while labels:
        name = ".".join(labels)
        record = record_at(name, questions)
        if record is not None:
            found[name] = record
            if record.psd in ("y", "n"):
                break
        labels = labels[-min(len(labels) - 1, MAX_WALK - 1) :] if len(labels) > 1 else []
    return found


def organization_in(domain: str, found: dict[str, Record]) -> str:
    """Choose the organizational domain from a walk that began at ``domain`` (RFC 9989, 4.10.2)."""
    if not found:
        return domain
    top, record = list(found.items())[-1]
    if record.psd == "y" and top != domain:
        labels = domain.split(".")
        return ".".join(labels[-top.count(".") - 2 :])
    return top


def organization_of(domain: str, questions: Questions, suffixes: SuffixList | None) -> str:
    """Find the organizational domain of any domain."""
    if suffixes is not None:
        return suffixes.organization(domain)
    return organization_in(domain, walk(domain, questions))


def discover(author: str, questions: Questions, suffixes: SuffixList | None) -> Policy | None:
    """Find the policy for an author's domain (RFC 9989, 4.10.1). Switches greenlets.

    Args:
        author: domain.
        questions: may be asked.
        suffixes: decides what an organization is, as in RFC 7489, instead of records.

    Returns:
        The policy, or None if there is no record.

    Raises:
        DnsError: an answer that could matter is missing.
    """
    record = record_at(author, questions)
    if record is not None:
        return Policy(author, author, record, _lowered(record, record.p), None)
    if suffixes is not None:
        domain = organization = suffixes.organization(author)
        record = record_at(domain, questions) if domain != author else None
    else:
        found = walk(author, questions)
        organization = domain = organization_in(author, found)
        if domain not in found and found:
            domain, top = list(found.items())[-1]
            record = top if top.psd == "y" else None
        else:
            record = found.get(domain)
    if record is None:
        return None
    policy = record.sp or record.p
    if record.np and record.np != policy and not _exists(author, questions):
        policy = record.np
    return Policy(author, domain, record, _lowered(record, policy), organization)


def _exists(author: str, questions: Questions) -> bool:
    try:
        return questions.answer(author, "A").exists
    except DnsError:
        return True  # sp holds then: only a name that is known not to exist is judged by np


def _lowered(record: Record, policy: str) -> str:
    if not record.testing:
        return policy
    return POLICIES[max(0, POLICIES.index(policy) - 1)]
