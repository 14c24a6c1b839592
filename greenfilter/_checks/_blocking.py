"""What holds up every session when it is called outside of ``thread=True``.

Only what is known for it: code that computes for long, and C libraries that wait without gevent's
knowledge. What waits in Python (sockets, ``time.sleep``, subprocesses) is cooperative.
"""

from __future__ import annotations

_COMPUTES = "computes"
_WAITS = "waits inside C code"
_LOOP = "runs an event loop of its own"

_KNOWN = {
    "argon2": _COMPUTES,
    "bcrypt": _COMPUTES,
    "bz2": _COMPUTES,
    "crypt.crypt": _COMPUTES,
    "cv2": _COMPUTES,
    "dkim.arc_sign": _COMPUTES,
    "dkim.arc_verify": _COMPUTES,
    "dkim.sign": _COMPUTES,
    "dkim.verify": _COMPUTES,
    "email.message_from_binary_file": _COMPUTES,
    "email.message_from_bytes": _COMPUTES,
    "email.message_from_file": _COMPUTES,
    "email.message_from_string": _COMPUTES,
    "email.parser": _COMPUTES,
    "hashlib.pbkdf2_hmac": _COMPUTES,
    "hashlib.scrypt": _COMPUTES,
    "joblib": _COMPUTES,
    "lzma": _COMPUTES,
    "numpy": _COMPUTES,
    "onnxruntime": _COMPUTES,
    "pandas": _COMPUTES,
    "PIL": _COMPUTES,
    "sklearn": _COMPUTES,
    "spacy": _COMPUTES,
    "tarfile": _COMPUTES,
    "tensorflow": _COMPUTES,
    "torch": _COMPUTES,
    "yara": _COMPUTES,
    "zipfile": _COMPUTES,
    "cx_Oracle": _WAITS,
    "duckdb": _WAITS,
    "fcntl.flock": _WAITS,
    "fcntl.lockf": _WAITS,
    "grpc": _WAITS,
    "ldap": _WAITS,
    "multiprocessing": _WAITS,
    "MySQLdb": _WAITS,
    "oracledb": _WAITS,
    "pam": _WAITS,
    "psycopg2": _WAITS,
    "pycurl": _WAITS,
    "pylibmc": _WAITS,
    "pymssql": _WAITS,
    "pyodbc": _WAITS,
    "sqlite3": _WAITS,
    "zmq": _WAITS,
    "anyio.run": _LOOP,
    "asyncio.run": _LOOP,
    "asyncio.new_event_loop": _LOOP,
    "asyncio.get_event_loop": _LOOP,
    "trio.run": _LOOP,
    # Names within the above that do neither.
    "zmq.green": "",
    "ldap.filter": "",
    "ldap.dn": "",
}


def blocking(dotted: str) -> str:
    """Say what a function or module does that holds up all sessions; "" if nothing is known."""
    words = dotted.split(".")
    for count in range(len(words), 0, -1):
        if (reason := _KNOWN.get(".".join(words[:count]))) is not None:
            return reason
    return ""
