"""What smtpd says of itself in the handshake."""

from __future__ import annotations

import re

from ._fields import version_of

_RELEASE = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9])")


class Config:
    """What smtpd says of itself before it serves (smtpd-filters(7), "CONFIGURATION").

    Attributes:
        values: every key as smtpd wrote it, with its last value.
        subsystems: where the filter is used: ``smtp-in``, ``smtp-out``.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.subsystems: list[str] = []

    def __getitem__(self, key: str) -> str:
        return self.values[key]

    def get(self, key: str, default: str | None = None) -> str | None:
        """Return the value of any key that smtpd sent, or ``default``."""
        return self.values.get(key, default)

    def wire(self) -> bytes:
        """Return it as smtpd wrote it, for another process."""
        lines = [f"{key}|{value}" for key, value in self.values.items() if key != "subsystem"]
        lines += [f"subsystem|{subsystem}" for subsystem in self.subsystems]
        return "".join(f"config|{line}\n" for line in [*lines, "ready"]).encode(
            "utf-8", "surrogateescape"
        )

    @property
    def smtpd_version(self) -> str | None:
        """Such as ``7.8.0-portable``."""
        return self.values.get("smtpd-version")

    @property
    def release(self) -> tuple[int, int] | None:
        """``smtpd_version`` as (7, 8); None if it is not given, or not in numbers."""
        match = _RELEASE.match(self.smtpd_version or "")
        return (int(match[1]), int(match[2])) if match else None

    @property
    def protocol(self) -> tuple[int, int] | None:
        """Version of the filter protocol; None before smtpd 7, which does not say."""
        raw = self.values.get("protocol")
        return version_of(raw.encode("utf-8", "surrogateescape")) if raw else None

    @property
    def smtp_session_timeout(self) -> float:
        """Seconds after which smtpd ends an idle session (300 if it did not say)."""
        raw = self.values.get("smtp-session-timeout", "")
        return float(raw) if raw.isdecimal() and raw.isascii() else 300.0

    @property
    def admd(self) -> str | None:
        """Name of the administrative domain, usually the host name."""
        return self.values.get("admd")
