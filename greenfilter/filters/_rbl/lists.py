"""All lists together: what they say of a client, and how much that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import gevent

from .options import Code
from .subjects import Subject
from .zone import Zone

_MAX_CODES = 8  # of one list that a reply or header tells


class Hit(NamedTuple):
    """That a list has somebody."""

    weight: float
    subject: Subject
    text: str
    """``list (code name, ...)``."""


class Listing(NamedTuple):
    """A client's score, and what it is made of, the weightiest first."""

    score: float
    hits: list[Hit]

    def __str__(self) -> str:
        """Name the lists."""
        return ", ".join(hit.text for hit in self.hits)

    @property
    def reason(self) -> str:
        """What a client is told."""
        return f"{self.hits[0].subject.shown} is listed by {self.hits[0].text}"


class Lists:
    """Asks lists. For one thread: the loop's.

    Args:
        zones: the lists.
        codes: what their answers mean, by name of the list ("" for all) and address.
        threshold: least score that counts.
    """

    def __init__(
        self, zones: Sequence[Zone], codes: Mapping[tuple[str, str], Code], threshold: float
    ) -> None:
        self.zones = zones
        self._codes = codes
        self._threshold = threshold

    def look_up(self, subjects: Sequence[Subject]) -> Listing | None:
        """Ask what is listed of these; None below the threshold. Switches greenlets."""
        gevent.joinall(self.start(subjects))
        found = [hit for zone in self.zones if (hit := self._hit(zone, subjects)) is not None]
        score = sum(hit.weight for hit in found)
        if not found or score < self._threshold:
            return None
        return Listing(score, sorted(found, key=lambda hit: -hit.weight))

    def start(self, subjects: Sequence[Subject]) -> list[gevent.Greenlet[..., tuple[str, ...]]]:
        """Begin to ask, all lists at the same time. Never switches greenlets."""
        asked = []
        for zone in self.zones:
            for subject in filter(zone.takes, subjects):
                zone.start_test(subject.family)
                if zone.is_waited_for(subject):
                    asked.append(gevent.spawn(zone.codes, subject))
        return asked

    def _hit(self, zone: Zone, subjects: Sequence[Subject]) -> Hit | None:
        """Return the weightiest of what a list has. May switch greenlets."""
        hits = [self._meaning(zone, subject) for subject in subjects if zone.takes(subject)]
        best = max((hit for hit in hits if hit), key=lambda hit: abs(hit.weight), default=None)
        return best if best is not None and zone.is_believed(best.subject.family) else None

    def _meaning(self, zone: Zone, subject: Subject) -> Hit | None:
        texts, weights = [], []
        for address in zone.codes(subject):
            code = self._codes.get((zone.name, address)) or self._codes.get(("", address))
            weight = zone.weight if code is None or code.weight is None else code.weight
            if weight:
                texts.append(f"{address} {code.name}" if code else address)
                weights.append(weight)
        if not texts:
            return None
        told = ", ".join(texts[:_MAX_CODES] + ["..."] * (len(texts) > _MAX_CODES))
        name = "" if subject.what == "client" else f"{subject.what} {subject.shown}: "
        return Hit(max(weights), subject, f"{zone.shown} ({name}{told})")
