"""Reading a whole message as the filter does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenfilter.filters._auth_verify.signed import BodyHash, split_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

    from greenfilter.filters._auth_verify.signed import BodyForm, Field


def split(message: bytes) -> tuple[list[Field], list[bytes]]:
    """Give the fields and the lines of the body."""
    if message.startswith(b"\r\n"):
        message = b"\r\n" + message
    block, _, body = message.partition(b"\r\n\r\n")
    lines = body.split(b"\r\n")
    return split_fields(block), lines[:-1] if not lines[-1] else lines


def hashes(lines: list[bytes], forms: Iterable[BodyForm | None]) -> dict[BodyForm, BodyHash]:
    """Hash a body, in pieces."""
    bodies = {form: BodyHash(form) for form in forms if form is not None}
    for body in bodies.values():
        for at in range(0, len(lines), 3):
            body.update(lines[at : at + 3])
    return bodies
