"""Log records: one line each on stderr, which smtpd writes into its own log."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

from ..errors import HandlerTimeout, SessionClosed

# Whoever passes the lines on cuts them at 4,096 bytes.
_MAX_TEXT = 3500
_MAX_JSON = 4096


class _SafeLogger(logging.Logger):
    """A logger that shields its callers from handlers that the filter's author has added.

    Answers are on their way when something is logged, in the hub too. A handler of the author's
    that raises, or waits (which nothing may do in the hub), must not stop them.
    """

    def handle(self, record: logging.LogRecord) -> None:
        """Write a record, if that is possible."""
        try:
            super().handle(record)
        except (HandlerTimeout, SessionClosed):
            raise
        except Exception:
            return

    def isEnabledFor(self, level: int) -> bool:
        """Return whether records of a level are wanted. Unlike the base class, take no lock."""
        return self.manager.disable < level >= self.getEffectiveLevel()


def _make_logger() -> logging.Logger:
    before = logging.getLoggerClass()
    logging.setLoggerClass(_SafeLogger)
    try:
        return logging.getLogger("greenfilter")
    finally:
        logging.setLoggerClass(before)


logger = _make_logger()


class SessionLogger(logging.LoggerAdapter[logging.Logger]):
    """``ctx.log``: a logger that puts the session id into each record."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the session id to the record."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


def session_logger(session_id: str) -> SessionLogger:
    """Return the logger of one session."""
    return SessionLogger(logger, {"session": session_id})


class Once:
    """Logs the first of what may come again and again. May be shared by threads.

    Args:
        most: how many kinds are logged at most; a client may make up many.
    """

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._seen: set[object] = set()

    def is_first(self, kind: object) -> bool:
        """Return whether this is the first of its kind, and remember it."""
        if kind in self._seen or len(self._seen) >= self._most:
            return False
        self._seen.add(kind)
        return True

    def warn(self, kind: object, text: str, *args: object, session: str | None = None) -> None:
        """Log a warning if it is the first of its kind; the text then says so.

        Args:
            kind: what makes two warnings the same.
            text: as for :meth:`logging.Logger.warning`.
            args: as for :meth:`logging.Logger.warning`.
            session: id of the session that the warning is about.
        """
        self._log(logging.WARNING, kind, text, args, session)

    def error(self, kind: object, text: str, *args: object, session: str | None = None) -> None:
        """Log an error if it is the first of its kind. Arguments as for :meth:`warn`."""
        self._log(logging.ERROR, kind, text, args, session)

    def _log(
        self, level: int, kind: object, text: str, args: tuple[object, ...], session: str | None
    ) -> None:
        if self.is_first(kind):
            log = logger if session is None else session_logger(session)
            log.log(level, "%s (logged once)", text % args if args else text)


class _LineFormatter(logging.Formatter):
    """One line: ``level: session: text``. Line breaks become spaces, tracebacks one line."""

    def format(self, record: logging.LogRecord) -> str:
        session = getattr(record, "session", None)
        parts = [record.levelname.lower(), session, _text(record)]
        return ": ".join(part for part in parts if part)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "session": getattr(record, "session", None),
        }
        known = {key: value for key, value in fields.items() if value is not None}
        text = _text(record)
        line, room = json.dumps({**known, "text": text}), _MAX_TEXT
        while len(line) > _MAX_JSON and room:
            room //= 2  # an object that is cut at its end would not be one
            line = json.dumps({**known, "text": _cut(text, room)})
        return line


class _StderrHandler(logging.Handler):
    """Writes to stderr, each record at once.

    It takes none of the locks of :mod:`logging`. gevent replaces them with its own, and whoever
    wants such a lock while a thread of the pool holds it must wait, which the hub cannot.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record unless it is filtered out."""
        wanted = bool(self.filter(record))
        if wanted:
            self.emit(record)
        return wanted

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)


def _text(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text = f"{text}: {' | '.join(traceback.format_exception(record.exc_info[1]))}"
        text = _cut(text, _MAX_TEXT)
    return " ".join(text.splitlines())


def _cut(text: str, room: int) -> str:
    """Cut the middle out of a text: a traceback says at its end what it is about."""
    if len(text) <= room:
        return text
    half = room // 2
    return f"{text[:half]} ... [cut, {len(text):,} characters] ... {text[len(text) - half :]}"


def format_line(text: str) -> str:
    """Return a warning as it would be logged, without its line's end."""
    record = logger.makeRecord(logger.name, logging.WARNING, "", 0, text, (), None)
    formatter = next((h.formatter for h in logging.getLogger().handlers if h.formatter), None)
    return (formatter or _LineFormatter()).format(record)


def set_up(level: str = "info", log_format: str = "text") -> None:
    """Send all records of the process to stderr, one line each.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        log_format: ``text`` or ``json``.
    """
    handler = _StderrHandler()
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.raiseExceptions = False  # a full log must not become a traceback per record


def find_origin(error: BaseException, file: str | None) -> str:
    """Return ``file:line`` where an error was raised: innermost in ``file``, else innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == file]
    best = (own or list(frames))[-1:]
    return f"{best[0].filename}:{best[0].lineno}" if best else "?"
