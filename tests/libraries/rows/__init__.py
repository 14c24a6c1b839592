"""All rows of the matrix, by kind."""

from __future__ import annotations

from typing import Final

from ..row import Row
from . import computing, databases, dns, files, http, logs, mail, processes, services, threads

KINDS: Final[dict[str, tuple[Row, ...]]] = {
    "HTTP": http.ROWS,
    "DNS, SPF, DKIM": dns.ROWS,
    "mail and sockets": mail.ROWS,
    "databases and directories": databases.ROWS,
    "processes": processes.ROWS,
    "threads and waiting": threads.ROWS,
    "files and signals": files.ROWS,
    "logging and metrics": logs.ROWS,
    "services": services.ROWS,
    "computing": computing.ROWS,
}
ROWS: Final[dict[str, Row]] = {row.name: row for rows in KINDS.values() for row in rows}
