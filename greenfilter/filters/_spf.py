"""SPF (RFC 7208) by pyspf, which asks our resolver."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from typing import Any

from ._dns import DnsError, Questions

with warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)
    import spf  # type: ignore[import-untyped]

# RFC 7208, 3.4 has a record fit into 512 octets. pyspf takes seconds for the macros of a huge one.
MAX_RECORD = 4096


class Query(spf.query):  # type: ignore[misc]
    """pyspf's query, asking ``questions``."""

    def __init__(self, ip: str, sender: str, helo: str, questions: Questions) -> None:
        super().__init__(ip, sender, helo)
        self._questions = questions

    def get_explanation(self, spec: str) -> None:
        """Ask for no explanation: nobody reads what a stranger has written."""

    def validated_ptrs(self) -> list[str]:
        """Return the client's names that lead back to it; errors skip a name (RFC 7208, 5.5)."""
        with contextlib.suppress(spf.TempError):
            return [name for name in self.dns_ptr(self.i)[: spf.MAX_PTR] if self._leads_back(name)]
        return []

    def _leads_back(self, name: str) -> bool:
        with contextlib.suppress(spf.TempError):
            return bool(self.cidrmatch(self.dns_a(name, self.A), self.cidrmax))
        return False

    def dns(
        self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False
    ) -> Sequence[Any]:
        """Answer a question of pyspf, in its own way for each type."""
        name = str(name).rstrip(".").lower()
        if any(not 0 < len(label) < 64 for label in name.split(".")):
            return []
        try:
            found = [_value(record) for record in self._questions.query(name, qtype)]
        except DnsError as error:
            raise spf.TempError(f"DNS Error: {error}") from None
        if not found and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError("Void lookup limit exceeded")
        return found


def _value(record: Any) -> Any:
    kind = record.rdtype.name
    if kind == "MX":
        return record.preference, record.exchange.to_text(omit_final_dot=True)
    if kind == "PTR":
        return record.target.to_text(omit_final_dot=True)
    if kind not in ("TXT", "SPF"):
        return record.address
    text = b"".join(record.strings)
    if len(text) > MAX_RECORD and text[:6].lower() == b"v=spf1":
        raise spf.PermError(f"the record has more than {MAX_RECORD} octets")
    return (text,)
