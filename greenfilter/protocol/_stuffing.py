"""Dot-stuffing: how lines of a message stand on the wire (RFC 5321, 4.5.2)."""

from __future__ import annotations


def stuff_line(line: bytes) -> bytes:
    """Put a dot before a line that begins with one."""
    return b"." + line if line[:1] == b"." else line


def unstuff_line(line: bytes) -> bytes:
    """Take off the dot that stands before a line that begins with one."""
    return line[1:] if line[:1] == b"." else line


def stuff(lines: list[bytes]) -> list[bytes]:
    """Stuff each line."""
    return [b"." + line if line[:1] == b"." else line for line in lines]


def unstuff(lines: list[bytes]) -> list[bytes]:
    """Take the dots off each line."""
    return [line[1:] if line[:1] == b"." else line for line in lines]


def stuff_message(data: bytes) -> bytes:
    """Stuff a whole message whose lines end in CRLF."""
    return stuff_line(data.replace(b"\r\n.", b"\r\n.."))
