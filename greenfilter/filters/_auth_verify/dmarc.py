"""DMARC (RFC 9989, 5): whether a message has passed, and what its author wants done if not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import gevent

from .._dns import DnsError, Questions
from .author import find_authors
from .domains import SuffixList, a_labels, is_below
from .policy import POLICIES, Policy, discover, organization_of

MAX_AUTHORS = 8  # domains in From that are looked at


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
        unchecked: there may be more authors than were looked at, whose policies nobody knows.
    """

    result: str
    reason: str = ""
    policy: str | None = None
    author_domain: str | None = None
    record_domain: str | None = None
    organizational_domain: str | None = None
    aligned_dkim: bool | None = False
    aligned_spf: bool | None = False
    unchecked: bool = False


class Evaluation:
    """DMARC for one message: begun before the signatures are verified, ended after.

    Args:
        fields: values of all From fields.
        questions: makes what may be asked, anew for each author: a stranger whose DNS is slow,
            and who writes himself in front of his victim, could else keep us from its policy.
        suffixes: see :func:`discover`.
    """

    def __init__(
        self,
        fields: list[str],
        questions: Callable[[], Questions],
        suffixes: SuffixList | None = None,
    ) -> None:
        self._fields = fields
        self._suffixes = suffixes
        domains, self._problem, self._is_cut = find_authors(fields)
        if len(domains) > MAX_AUTHORS:
            self._problem, self._is_cut = "too many domains in From", True
        self.authors = domains[:MAX_AUTHORS]
        self._questions = {author: questions() for author in self.authors}

    @property
    def is_malformed(self) -> bool:
        """Whether From does not name one author domain, in one field."""
        return bool(self._problem) or len(self.authors) != 1 or len(self._fields) != 1

    def discover(self) -> None:
        """Ask for what is needed of the authors, so that it is known however long SPF takes."""
        asked = [gevent.spawn(self._discover, author) for author in self.authors]
        try:
            for each in asked:
                each.get()
        finally:
            gevent.killall(asked, block=False)

    def conclude(self, identifiers: Sequence[Identifier]) -> Dmarc:
        """Judge the message. Switches greenlets.

        Args:
            identifiers: what SPF and DKIM found, in any order.
        """
        identifiers = list(_normal(identifiers))
        if not self.authors:
            return Dmarc("permerror", self._problem, unchecked=self._is_cut)
        if not self.is_malformed:
            return self._judge(self.authors[0], identifiers)
        # A repeated field belongs to nobody; several authors must all have sent it. The strictest
        # policy of those who have not holds (RFC 9989, 5.3.1 and 11.5), or may hold where there
        # are more than we ask about.
        identifiers = [] if len(self._fields) > 1 else identifiers
        judged = [self._judge(author, identifiers) for author in self.authors]
        failed = [each for each in judged if each.result == "fail"]
        many = "several From fields" if len(self._fields) > 1 else "several domains in From"
        many = self._problem or many
        if failed:
            worst = max(failed, key=lambda each: POLICIES.index(each.policy or "none"))
            worst = worst._replace(reason=many, aligned_dkim=False, aligned_spf=False)
            return worst._replace(unchecked=self._is_cut)
        is_unknown = any(each.result == "temperror" for each in judged)
        return Dmarc("temperror" if is_unknown else "permerror", many, unchecked=self._is_cut)

    def _discover(self, author: str) -> None:
        questions = self._questions[author]
        # Errors are told when it is asked for again.
        with contextlib.suppress(DnsError):
            if discover(author, questions, self._suffixes) is not None:
                organization_of(author, questions, self._suffixes)

    def _judge(self, author: str, identifiers: Sequence[Identifier]) -> Dmarc:
        try:
            policy = discover(author, self._questions[author], self._suffixes)
        except DnsError as error:
            return Dmarc("temperror", str(error), author_domain=author)
        if policy is None:
            return Dmarc("none", author_domain=author)
        if policy.record.problem:
            return Dmarc("permerror", policy.record.problem, author_domain=author)
        return self._align(policy, identifiers)

    def _align(self, policy: Policy, identifiers: Sequence[Identifier]) -> Dmarc:
        alignment = _Alignment(policy, self._questions[policy.author], self._suffixes)
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
        """Return whether one of some domains is the author's.

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
        # The organizational domain is above both. So strangers cannot have their own DNS asked,
        # whose failures would be taken for doubts.
        related = [each for each in domains if _top(each) == _top(author)]
        if related and not ask:
            return None
        known = True
        for domain in sorted(related):
            try:
                own = self._own_organization()
                if is_below(domain, own) and self._organization_of(domain) == own:
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
