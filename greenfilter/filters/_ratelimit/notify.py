"""Tells the administrator: a command runs once for each key and period."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import shutil
import subprocess
import threading
from typing import Any

from .._store import Store, StoreError, store_key
from .ledger import Refusal

_SECONDS = 60.0  # that the command may take
_AT_ONCE = 4
_WAITING = 100

log = logging.getLogger("greenfilter.ratelimit")


def parse_command(text: str) -> list[str]:
    """Parse a command with its arguments, in which a shell's quotes work; no shell runs it."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise argparse.ArgumentTypeError(f"{text!r}: there is no such program")
    return words


class Notifier:
    """Runs the command, beside what answers clients.

    Args:
        words: the command and its arguments.
        store: where it is kept who was told of.
    """

    def __init__(self, words: list[str], store: Store) -> None:
        self._words = words
        self._store = store
        self._turns = threading.BoundedSemaphore(_AT_ONCE)
        self._waiting = threading.BoundedSemaphore(_WAITING)

    def tell(self, refusal: Refusal, facts: dict[str, Any]) -> None:
        """Run the command for a refusal, unless it was run for its key within the period.

        Args:
            refusal: what was refused.
            facts: what the command is told: as JSON on its standard input, and each one in its
                environment, ``RATELIMIT_`` before the name.
        """
        claim = refusal.claim
        key = store_key("t", claim.limit.scope, claim.who, claim.limit.kind, claim.limit.shown)
        try:
            if not self._store.add(key, "1", claim.limit.period):
                return
        except StoreError:
            return  # who would have been told by now is unknown, and the log has the refusal
        if not self._waiting.acquire(blocking=False):
            log.error("ratelimit: %d notifications are waiting; %s is not told", _WAITING, key)
            return
        threading.Thread(target=self._run, args=(facts,), daemon=True).start()

    def _run(self, facts: dict[str, Any]) -> None:
        try:
            with self._turns:
                self._run_command(facts)
        finally:
            self._waiting.release()

    def _run_command(self, facts: dict[str, Any]) -> None:
        told = {f"RATELIMIT_{name.upper()}": _text(value) for name, value in facts.items()}
        try:
            done = subprocess.run(
                self._words,
                input=json.dumps(facts).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **told},
                timeout=_SECONDS,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.error("ratelimit: %s: %s", self._words[0], error)
            return
        if done.returncode:
            output = done.stdout.decode("utf-8", "replace").strip()[-500:]
            log.error("ratelimit: %s: status %d: %s", self._words[0], done.returncode, output)


def _text(value: Any) -> str:
    """Return a fact for the environment, which takes no NUL and no surrogates."""
    text = "" if value is None else str(value)
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "")
