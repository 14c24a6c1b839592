"""Where accepted messages go."""

from __future__ import annotations

import mailbox
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..testing import Message


class Maildir:
    """A folder of messages, made as far as it is not there.

    Args:
        path: of the folder, with ``tmp``, ``new`` and ``cur`` in it.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        # mailbox.Maildir makes its three directories only where it makes the folder.
        for name in ("tmp", "new", "cur"):
            (path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = mailbox.Maildir(path, create=False)
        self._new = path / "new"

    def store(self, message: Message) -> Path:
        """Add a message, with its envelope as header lines. Never switches greenlets.

        Returns:
            Path of the new file.

        Raises:
            OSError: the disk is full, for example.
        """
        envelope = [f"Return-Path: <{message.mail_from}>"]
        envelope += [f"Delivered-To: {recipient}" for recipient in message.rcpt_to]
        head = "".join(f"{line}\n" for line in envelope).encode("utf-8", "surrogateescape")
        return self._new / self._folder.add(head + message.data.replace(b"\r\n", b"\n"))
