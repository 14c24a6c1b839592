"""Addresses that rules rewrite: in a header field, and of the envelope."""

from __future__ import annotations

from collections.abc import Callable

from .._smtpd_edits import scan, split_addresses


def map_field(value: str, change: Callable[[str], str]) -> str:
    """Return a field with each address that can be read changed; all else stays as it is."""
    return ",".join(_map_part(part, change) for part in split_addresses(value))


def _map_part(part: str, change: Callable[[str], str]) -> str:
    *chars, (end, _, left_open) = scan(part, quoted_pairs=True)
    plain = [(index, char) for index, char, quoted in chars if not quoted and char != '"']
    seen = [index for index, char, _ in chars if not char.isspace()]
    if left_open or not seen:
        return part
    opens = [index for index, char in plain if char == "<"]
    closes = [index for index, char in plain if char == ">"]
    if opens or closes:
        if len(opens) != 1 or len(closes) != 1 or opens > closes:
            return part
        start, end = opens[0] + 1, closes[0]
    else:  # perhaps within a group
        colons = [index for index, char in plain if char == ":"]
        start = colons[0] + 1 if colons else seen[0]
        ends = [index for index, char in plain if char == ";"]
        inside = [index for index in seen if start <= index < (ends[-1] if ends else end)]
        if not inside:
            return part
        start, end = inside[0], inside[-1] + 1
    address = part[start:end].strip()
    local, _, domain = address.rpartition("@")
    if not local or not domain or any(char in domain for char in ' \t"()<>'):
        return part
    if not local.startswith('"') and any(char in local for char in ' \t()<>,;:@"'):
        return part
    return part[:start] + part[start:end].replace(address, change(address)) + part[end:]
