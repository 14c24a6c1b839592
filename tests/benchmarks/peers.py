"""The filters that are compared: how each is built and started."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
PLACES = ("/usr/libexec/opensmtpd", "/usr/local/libexec/smtpd")
NEEDS_ROOT = "filter-senderscore asks the system's DNS server; only root may give it another one"


class MissingPeer(Exception):
    """A peer is not installed or does not compile."""


def compiled(name: str, folder: Path) -> list[str]:
    """Compile ``peers/name.c`` against libopensmtpd and return how to start it.

    Raises:
        MissingPeer: there is no compiler, or no libopensmtpd (Debian: libopensmtpd-dev).
    """
    program = folder / name
    command = ["cc", "-O2", "-o", str(program), str(HERE / "peers" / f"{name}.c"), "-lopensmtpd"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise MissingPeer("no C compiler") from error
    except subprocess.CalledProcessError as error:
        raise MissingPeer(f"{name}.c does not compile: {error.stderr}") from error
    return [str(program)]


def naive(role: str) -> list[str]:
    """The plain Python loop, as ``echo`` or ``sessions`` filter."""
    return [sys.executable, str(HERE / "peers" / "naive.py"), role]


def dkimsign(key: Path, domain: str, selector: str) -> list[str]:
    """filter-dkimsign with relaxed canonicalisation.

    Raises:
        MissingPeer: it is not installed (Debian: opensmtpd-filter-dkimsign).
    """
    options = ["-c", "relaxed/relaxed", "-d", domain, "-s", selector, "-k", str(key)]
    return [_installed("filter-dkimsign"), *options]


def rspamd(port: int) -> list[str]:
    """filter-rspamd, asking a worker of rspamd on loopback.

    Raises:
        MissingPeer: it is not installed (Debian: opensmtpd-filter-rspamd).
    """
    return [_installed("filter-rspamd"), "-url", f"http://127.0.0.1:{port}"]


def senderscore(resolv_conf: Path) -> list[str]:
    """filter-senderscore, which knows no resolver but that of the system: so it gets another file.

    Raises:
        MissingPeer: it is not installed (Debian: opensmtpd-filter-senderscore), or this user may
            not give it a resolv.conf of its own.
    """
    program = _installed("filter-senderscore")
    if os.geteuid() != 0:
        raise MissingPeer(NEEDS_ROOT)
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$1" -junkBelow 50'
    return ["unshare", "--mount", "sh", "-c", script, str(resolv_conf), program]


def _installed(name: str) -> str:
    for place in PLACES:
        if (Path(place) / name).exists():
            return str(Path(place) / name)
    raise MissingPeer(f"{name} is not installed")


def greenfilter(filter_name: str, *arguments: str) -> list[str]:
    """``greenfilter run`` of a file in ``filters/``, or of a stock filter, in one process."""
    options = ("--no-supervisor",) if has_supervisor() else ()
    return _run(filter_name, arguments, options)


def supervised(filter_name: str, *arguments: str, workers: int = 1) -> list[str]:
    """The same under the supervisor, with that many worker processes."""
    options = ("--workers", str(workers)) if workers > 1 else ()
    return _run(filter_name, arguments, options)


def recorded(log: Path, filter_name: str, *arguments: str) -> list[str]:
    """The same under the supervisor, with ``greenfilter record`` in front."""
    record = [sys.executable, "-m", "greenfilter", "record", "-o", str(log), "--"]
    return [*record, *supervised(filter_name, *arguments)]


def has_supervisor() -> bool:
    """Return whether this greenfilter has a supervisor."""
    return "--no-supervisor" in _help()


def has_workers() -> bool:
    """Return whether this greenfilter shares sessions over several worker processes."""
    return "--workers" in _help()


@cache
def _help() -> str:
    command = [sys.executable, "-m", "greenfilter", "run", "--help"]
    return subprocess.run(command, capture_output=True, text=True).stdout


def _run(filter_name: str, arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    is_file = filter_name.endswith((".py", ".toml"))
    target = str(HERE / "filters" / filter_name) if is_file else filter_name
    return [sys.executable, "-m", "greenfilter", "run", *options, target, *arguments]
