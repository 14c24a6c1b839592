"""DMARC (RFC 9989): whose policy holds for a message, and whether it has passed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from .._dns import DnsError, Questions
from .author import AuthorError, author_domains
from .domains import SuffixList, a_labels

MAX_WALK = 8  # labels, and with them questions (RFC 9989, 4.10)
MAX_AUTHORS = 8  # domains in From that are looked at
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


class Identifier(NamedTuple):
    """A domain that was checked: ``method`` is dkim or spf, ``result`` a word of RFC 8601."""

    method: str
    domain: str
    result: str


class Dmarc(NamedTuple):
    """What DMARC says about a message.

    Attributes:
        result: pass, fail, none, temperror or permerror.
        reason: in words, "" where there is nothing to say.
        policy: none, quarantine or reject: what is to be done with the message if it fails.
        author_domain: of its From field; None if there is not exactly one.
        record_domain: where the record is.
        organizational_domain: of the author; None if it was not needed.
        aligned_dkim: whether a signature that passed belongs to the author; None: not known.
        aligned_spf: the same for SPF.
    """

    result: str
    reason: str = ""
    policy: str | None = None
    author_domain: str | None = None
    record_domain: str | None = None
    organizational_domain: str | None = None
    aligned_dkim: bool | None = False
    aligned_spf: bool | None = False


# --- records ---


def parse_record(text: str) -> Record | None:
    """Read a TXT record; None if it is no DMARC record (RFC 9989, 4.7 and 4.8)."""
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
            problem = f"{wrong[0]}={tags[wrong[0]][:40]} is no policy"
    return Record(
        *policies,
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


# --- evaluation ---


class Evaluation:
    """DMARC for one message: begun before the signatures are verified, ended after.

    Args:
        fields: values of all From fields.
        questions: may be asked.
        suffixes: see :func:`discover`.
    """

    def __init__(
        self, fields: list[str], questions: Questions, suffixes: SuffixList | None = None
    ) -> None:
        self._fields = fields
        self._questions = questions
        self._suffixes = suffixes
        self._problem = ""
        self.authors: list[str] = []
        try:
            self.authors = author_domains(fields)
        except AuthorError as error:
            self._problem = str(error)
        if len(self.authors) > MAX_AUTHORS:
            self._problem = "too many domains in From"

    @property
    def is_malformed(self) -> bool:
        """Whether From does not name one author domain, in one field."""
        return bool(self._problem) or len(self.authors) != 1 or len(self._fields) != 1

    def discover(self) -> None:
        """Ask for what is needed whatever SPF and DKIM say, so that it is known in time."""
        for author in () if self._problem else self.authors:
            try:
                discover(author, self._questions, self._suffixes)
            except DnsError:
                return  # told when it is asked for again

    def conclude(self, identifiers: Sequence[Identifier]) -> Dmarc:
        """Judge the message. Switches greenlets.

        Args:
            identifiers: what SPF and DKIM found, in any order.
        """
        identifiers = list(_normal(identifiers))
        if self._problem:
            return Dmarc("permerror", self._problem)
        if not self.is_malformed:
            return self._judge(self.authors[0], identifiers)
        # A repeated field belongs to nobody; several authors must all have sent it. The strictest
        # policy of those who have not holds (RFC 9989, 5.3.1 and 11.5).
        identifiers = [] if len(self._fields) > 1 else identifiers
        judged = [self._judge(author, identifiers) for author in self.authors]
        failed = [each for each in judged if each.result == "fail"]
        many = "several From fields" if len(self._fields) > 1 else "several domains in From"
        if failed:
            worst = max(failed, key=lambda each: POLICIES.index(each.policy or "none"))
            return worst._replace(reason=many, aligned_dkim=False, aligned_spf=False)
        if any(each.result == "temperror" for each in judged):
            return Dmarc("temperror", many)
        return Dmarc("permerror", many)

    def _judge(self, author: str, identifiers: Sequence[Identifier]) -> Dmarc:
        try:
            policy = discover(author, self._questions, self._suffixes)
        except DnsError as error:
            return Dmarc("temperror", str(error), author_domain=author)
        if policy is None:
            return Dmarc("none", author_domain=author)
        if policy.record.problem:
            return Dmarc("permerror", policy.record.problem, author_domain=author)
        return self._align(policy, identifiers)

    def _align(self, policy: Policy, identifiers: Sequence[Identifier]) -> Dmarc:
        alignment = _Alignment(policy, self._questions, self._suffixes)
        dkim = alignment.of("dkim", _domains(identifiers, "dkim", "pass"))
        # One is enough: what is more than a comparison of names is not done for the other.
        spf = alignment.of("spf", _domains(identifiers, "spf", "pass"), ask=dkim is not True)
        result = "fail"
        if True in (dkim, spf):
            result = "pass"
        elif None in (dkim, spf) or any(
            # What could not be checked might have passed.
            alignment.of(method, _domains(identifiers, method, "temperror")) is not False
            for method in ("dkim", "spf")
        ):
            result = "temperror"
            found = Dmarc(result, alignment.reason or "not all could be checked")
            return found._replace(author_domain=policy.author, aligned_dkim=dkim, aligned_spf=spf)
        return Dmarc(
            result,
            policy=policy.policy,
            author_domain=policy.author,
            record_domain=policy.domain,
            organizational_domain=alignment.organization,
            aligned_dkim=dkim,
            aligned_spf=spf,
        )


def _normal(identifiers: Iterable[Identifier]) -> Iterator[Identifier]:
    for each in identifiers:
        with contextlib.suppress(ValueError):
            yield each._replace(domain=a_labels(each.domain))


def _domains(identifiers: Sequence[Identifier], method: str, result: str) -> list[str]:
    return [each.domain for each in identifiers if (each.method, each.result) == (method, result)]


class _Alignment:
    """Compares domains with an author's (RFC 9989, 4.4).

    Attributes:
        organization: of the author, as far as it was needed.
        reason: why the last domain could not be compared.
    """

    def __init__(self, policy: Policy, questions: Questions, suffixes: SuffixList | None) -> None:
        self._policy = policy
        self._questions = questions
        self._suffixes = suffixes
        self.organization = policy.organization
        self.reason = ""

    def of(self, method: str, domains: Iterable[str], *, ask: bool = True) -> bool | None:
        """Whether one of some domains is the author's.

        Args:
            method: dkim or spf.
            domains: in A-labels.
            ask: whether DNS may be asked.

        Returns:
            None if that is not known.
        """
        author, record = self._policy.author, self._policy.record
        domains = set(domains)
        if author in domains:
            return True
        if record.strict_dkim if method == "dkim" else record.strict_spf:
            return False
        # The organizational domain is above both, so there has to be a name above both.
        related = sorted(each for each in domains if _top(each) == _top(author))
        known = True
        for domain in related:
            if not ask:
                return None
            try:
                if self._organization_of(domain) == self._own_organization():
                    return True
            except DnsError as error:
                self.reason, known = str(error), False
        return False if known else None

    def _own_organization(self) -> str:
        if self.organization is None:
            self.organization = self._organization_of(self._policy.author)
        return self.organization

    def _organization_of(self, domain: str) -> str:
        return organization_of(domain, self._questions, self._suffixes)


def _top(name: str) -> str:
    return name.rpartition(".")[2]
