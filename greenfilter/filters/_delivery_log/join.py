"""Tells what is relayed whence it came: the facts of a message are kept until it must be gone."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from .._store import Store, StoreError, store_key

Record = dict[str, Any]

_FACTS = ("client", "client_name", "helo", "user", "size")
_MOST_OWED = 10_000
# A relay may be faster than the worker that has seen the message come in.
_TRIES, _TRY_SECONDS = 6, 0.1


class Joins:
    """The facts of accepted messages. Methods may switch greenlets.

    Args:
        store: where they are kept.
        lifetime: seconds that they are kept; as long as smtpd tries to deliver.
    """

    def __init__(self, store: Store, lifetime: float) -> None:
        self._store = store
        self._lifetime = lifetime
        self._owed: deque[tuple[str, str]] = deque(maxlen=_MOST_OWED)

    def keep(self, records: Sequence[Record]) -> None:
        """Keep the facts of a message: its records, one for each recipient.

        While the store is away they are kept in mind.
        """
        first = records[0]
        facts = {name: first.get(name) for name in (*_FACTS, "mail_from", "mail_from_before")}
        facts["accepted"] = first["time"]
        facts["rcpt_to"] = [
            [each["envelope_id"], each["rcpt_to"], each["rcpt_to_before"]] for each in records
        ]
        self._owed.append((_key(first["message_id"]), json.dumps(facts)))
        self._pay()

    def add_facts(self, records: Sequence[Record]) -> list[Record]:
        """Return records of what was relayed with what is known of their message."""
        try:
            self._pay()
            return [self._joined(record) for record in records]
        except StoreError:
            return [{**record, "joined": False} for record in records]

    def _joined(self, record: Record) -> Record:
        text = self._find(record["message_id"]) if record["message_id"] else None
        if text is None:
            return {**record, "joined": False}
        facts = json.loads(text)
        added = {name: facts[name] for name in ("accepted", *_FACTS, "mail_from_before")}
        before = _recipient_before(facts["rcpt_to"], record)
        return {**record, "joined": True, **added, "rcpt_to_before": before}

    def _find(self, message_id: str) -> str | None:
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(_TRY_SECONDS)
            text = self._store.get(_key(message_id))
            if text is not None:
                return text
        return None

    def _pay(self) -> None:
        while self._owed:
            key, text = owed = self._owed.popleft()
            try:
                self._store.set(key, text, self._lifetime)
            except StoreError:
                self._owed.appendleft(owed)
                return


def _recipient_before(kept: Sequence[Sequence[str | None]], record: Record) -> str | None:
    """Return the recipient as the client asked for it; None where an alias has become several."""
    for envelope_id, _, before in kept:
        if envelope_id is not None and envelope_id == record["envelope_id"]:
            return before
    for _, after, before in kept:
        if str(after).lower() == str(record["rcpt_to"]).lower():
            return before
    return kept[0][2] if len(kept) == 1 else None


def _key(message_id: str) -> str:
    return store_key("m", message_id)
