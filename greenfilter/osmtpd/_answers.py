"""The answers of a filter: osmtpd_filter_*()."""

from __future__ import annotations

import re
from typing import Any

from ..errors import DecisionError
from ..protocol import Decision, disconnect, proceed, reject, rewrite
from ._ctx import osmtpd_ctx, pending_of

# Python's % knows no length modifiers but h, l and L.
_LENGTH = re.compile(r"%%|(%[-+ #0-9.*]*)(?:hh|ll|[hlqjztL])(?=[diouxX])")


def formatted(text: str | bytes, args: tuple[Any, ...]) -> str:
    """Format as printf(3) does. Bytes are taken as they are, also as arguments."""
    if isinstance(text, bytes):
        text = _text(text)
        if not args:
            return text
    text = _LENGTH.sub(lambda match: match[1] or "%%", text)
    return text % tuple(_text(arg) if isinstance(arg, bytes) else arg for arg in args)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _answer(ctx: osmtpd_ctx, decision: Decision) -> bool:
    """Answer the request of ctx, else the oldest one of its session that is not answered yet."""
    requests = pending_of(ctx._context).requests
    call = ctx._request or next(iter(requests), None)
    if call is None:
        raise DecisionError(f"{decision!r}, but smtpd waits for no answer in this session")
    requests.pop(call, None)
    return call.reply(decision)


def osmtpd_filter_proceed(ctx: osmtpd_ctx) -> bool:
    """Let the command go on. Never switches greenlets, and may be called from any thread.

    Returns:
        Whether this was the answer. False if there was one before; nothing changes then.

    Raises:
        DecisionError: the session waits for no answer.
    """
    return _answer(ctx, proceed())


def osmtpd_filter_reject(ctx: osmtpd_ctx, error: int, msg: str, *args: Any) -> bool:
    """Refuse the command.

    Args:
        ctx: of the request.
        error: SMTP reply code, 400 to 599.
        msg: text for the client, a format of printf(3) for ``args``.
        args: for ``msg``.

    Returns:
        As :func:`osmtpd_filter_proceed`, which also tells of threads and greenlets.

    Raises:
        DecisionError: the code is not valid, or the session waits for no answer.
    """
    return _answer(ctx, reject(error, formatted(msg, args)))


def osmtpd_filter_reject_enh(
    ctx: osmtpd_ctx, error: int, class_: int, subject: int, detail: int, msg: str, *args: Any
) -> bool:
    """Refuse the command with an enhanced status code (RFC 3463).

    Args:
        ctx: of the request.
        error: SMTP reply code, 400 to 599.
        class_: first number of the enhanced code; the first digit of ``error``.
        subject: second number, 0 to 999.
        detail: third number, 0 to 999.
        msg: text for the client, a format of printf(3) for ``args``.
        args: for ``msg``.

    Returns:
        As :func:`osmtpd_filter_proceed`.

    Raises:
        DecisionError: a code is not valid, or the session waits for no answer.
    """
    enhanced = f"{class_}.{subject}.{detail}"
    return _answer(ctx, reject(error, formatted(msg, args), enhanced=enhanced))


def osmtpd_filter_disconnect(ctx: osmtpd_ctx, msg: str, *args: Any) -> bool:
    """Refuse the command with 421 and close the connection. Else as osmtpd_filter_reject()."""
    return _answer(ctx, disconnect(421, formatted(msg, args)))


def osmtpd_filter_disconnect_enh(
    ctx: osmtpd_ctx, class_: int, subject: int, detail: int, msg: str, *args: Any
) -> bool:
    """Refuse the command with 421 and close the connection. Else as osmtpd_filter_reject_enh()."""
    enhanced = f"{class_}.{subject}.{detail}"
    return _answer(ctx, disconnect(421, formatted(msg, args), enhanced=enhanced))


def osmtpd_filter_rewrite(ctx: osmtpd_ctx, value: str, *args: Any) -> bool:
    """Replace the argument of the command.

    Args:
        ctx: of the request.
        value: the new argument, a format of printf(3) for ``args``.
        args: for ``value``.

    Returns:
        As :func:`osmtpd_filter_proceed`.

    Raises:
        DecisionError: the value is empty, or has CR, LF or NUL; or nothing waits for an answer.
    """
    return _answer(ctx, rewrite(formatted(value, args)))


def osmtpd_filter_dataline(ctx: osmtpd_ctx, line: str | bytes, *args: Any) -> bool:
    """Write a line of the message. May be called from any thread.

    In the data line callback itself it switches greenlets while smtpd reads slower than lines are
    written, else never.

    Args:
        ctx: of the message.
        line: as on the wire: dot-stuffed, without LF; the lone ``"."`` ends the message. A str is
            a format of printf(3) for ``args``; bytes without ``args`` are sent as they are.
        args: for ``line``.

    Returns:
        False if the message had ended by then, or its session had; nothing changes then.

    Raises:
        DecisionError: the lone ``"."`` comes before all lines have come, or no message has begun.
    """
    write = ctx._write or pending_of(ctx._context).write
    if write is None:
        raise DecisionError("a data line, but no message has begun in this session")
    return write(formatted(line, args).encode("utf-8", "surrogateescape"))
