"""An LDAP server of a test's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

from tests.support.wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SUFFIX = "dc=example,dc=org"
ADMIN, PASSWORD = f"cn=admin,{SUFFIX}", "secret"


def missing() -> str | None:
    """Return why slapd cannot run here, or None if it can."""
    return None if _program() else "slapd is not installed"


class Slapd:
    """A slapd on a free port of 127.0.0.1 with one entry for each user. Use it with ``with``.

    Args:
        directory: where it keeps its data.
        users: the ``mail`` attributes of each ``uid``.
    """

    def __init__(self, directory: Path, users: Mapping[str, Sequence[str]]) -> None:
        self._directory = directory
        self._users = users
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]

    def __enter__(self) -> Slapd:
        (self._directory / "data").mkdir()
        self._conf.write_text(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n"
            "include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\n"
            f"moduleload back_mdb\npidfile {self._directory}/pid\ndatabase mdb\n"
            f'suffix "{SUFFIX}"\nrootdn "{ADMIN}"\nrootpw {PASSWORD}\n'
            f"directory {self._directory}/data\naccess to * by users read by anonymous auth\n"
        )
        entries = [f"dn: {SUFFIX}\nobjectClass: domain\ndc: example\n"]
        for uid, mails in self._users.items():
            lines = [f"dn: uid={uid},{SUFFIX}", "objectClass: inetOrgPerson", f"uid: {uid}"]
            lines += ["cn: x", "sn: x", *(f"mail: {mail}" for mail in mails)]
            entries.append("\n".join(lines) + "\n")
        add = [str(_program("slapadd")), "-f", str(self._conf)]
        subprocess.run(add, input="\n".join(entries), text=True, check=True, capture_output=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _conf(self) -> Path:
        return self._directory / "slapd.conf"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        url = f"ldap://127.0.0.1:{self.port}"
        words = [str(_program()), "-d", "0", "-f", str(self._conf), "-h", url]
        self._process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        wait_until(self._listens, 15.0, "slapd to listen")

    def stop(self) -> None:
        """Kill it: nobody listens on its port then."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _program(name: str = "slapd") -> str | None:
    return shutil.which(name, path="/usr/sbin:/usr/lib/openldap:/usr/bin")
