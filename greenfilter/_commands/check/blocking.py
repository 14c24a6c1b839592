"""What holds up every session, or fails, when it is called outside of ``thread=True``.

Only what is known for it: code that computes for long, C libraries that wait without gevent's
knowledge, and what belongs to the process as a whole. What waits in Python (sockets,
``time.sleep``, subprocesses, locks, queues) is cooperative.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a call is reported.

    Args:
        does: the rest of a sentence that begins with the name of the call.
        instead: what else can be done; "" for nothing.
        thread: ``thread=True`` is a cure.
        blocks: it holds up all sessions; else it fails.
        is_error: it fails whenever it runs.
        key: the entry of the table.
    """

    does: str
    instead: str = ""
    thread: bool = True
    blocks: bool = True
    is_error: bool = False
    key: str = field(default="", compare=False)


_Entry = TypeVar("_Entry")
_COMPUTES = Cause("computes")
_MAY_COMPUTE = Cause("may compute for long")
_WAITS = Cause("waits inside C code")
_LOCKS = Cause("waits inside C code while another process has the lock")
_FOREIGN = Cause("runs C code that gevent knows nothing of")
_LOOP = Cause(
    "runs an event loop of its own, which only one session at a time can have", blocks=False
)
_NATIVE_POLL = Cause(
    "waits without gevent's knowledge", "use select.poll or selectors.DefaultSelector"
)
_WHOLE_PROCESS = Cause(
    "is for the whole process, and cannot end the wait of one session",
    "use deadline=",
    thread=False,
    blocks=False,
)
PIPE = Cause("waits for the other end inside C code", "use subprocess, or select.select before it")


def _waits(instead: str) -> Cause:
    return Cause(_WAITS.does, instead)


def _each(found: _Entry, names: str) -> dict[str, _Entry]:
    return dict.fromkeys(names.split(), found)


# A name stands for all that is in it and for all that is made by it; the longest one counts. With
# ".*" it stands for these alone. None: neither waits nor computes.
_KNOWN: dict[str, Cause | None] = {
    # Computing
    **_each(
        _COMPUTES,
        """
        argon2 bcrypt bz2 crypt.crypt cryptography.hazmat.primitives.kdf cv2 dkim.arc_sign
        dkim.ARC.sign dkim.DKIM.sign dkim.sign fitz hashlib.pbkdf2_hmac hashlib.scrypt joblib
        email.message_from_binary_file email.message_from_bytes email.message_from_file
        email.message_from_string email.parser lzma nacl.pwhash passlib.hash
        passlib.context PIL polars pytesseract tarfile yara zipfile
        cryptography.hazmat.primitives.asymmetric.rsa.generate_private_key
        """,
    ),
    **_each(
        _MAY_COMPUTE,
        """
        catboost fasttext gensim keras lightgbm nltk onnxruntime pandas sklearn spacy
        tensorflow tflite_runtime torch transformers xgboost
        """,
    ),
    "joblib.load": None,
    # Databases and directories
    "psycopg2": _waits("use psycopg 3"),
    "psycopg2cffi": _waits("use psycopg 3"),
    "psycopg2.sql": None,
    "psycopg2.extras.Json": None,
    "MySQLdb": _waits("use PyMySQL"),
    "mariadb": _waits("use PyMySQL"),
    "mysql.connector": _waits("connect with use_pure=True"),
    "pymssql": _waits("use python-tds"),
    "ldap": _waits("use ldap3"),
    "ldap.dn": None,
    "ldap.filter": None,
    "sqlite3": _WAITS,
    **_each(None, "sqlite3.Binary sqlite3.register_adapter sqlite3.Row"),
    **_each(
        _WAITS,
        """
        adbc_driver_manager adbc_driver_postgresql aerospike apsw couchbase cx_Oracle duckdb
        fdb firebird.driver ibm_db ibm_db_dbi jaydebeapi oracledb pyodbc sqlanydb turbodbc
        """,
    ),
    **_each(_LOCKS, "bsddb3 berkeleydb dbm.gnu leveldb lmdb plyvel rocksdb unqlite"),
    # Networks and devices
    "confluent_kafka": _waits("use kafka-python"),
    "grpc": _waits("call grpc.experimental.gevent.init_gevent() at the top of the file"),
    "pycurl": _waits("use requests, httpx or urllib"),
    "pylibmc": _waits("use pymemcache"),
    "zmq": _waits("import zmq.green as zmq"),
    "zmq.green": None,
    **_each(
        _WAITS,
        """
        cassandra dbus easysnmp gssapi kerberos libvirt nanomsg netsnmp pam pcap PyKCS11
        posix_ipc pulsar pynng pyudev rados smbc systemd.journal sysv_ipc usb
        """,
    ),
    **_each(
        _FOREIGN,
        """
        ctypes.CDLL.* ctypes.PyDLL.* ctypes.cdll.* ctypes.pydll.* cffi.FFI.dlopen.*
        """,
    ),
    "ctypes.cdll.LoadLibrary": None,
    "ctypes.pydll.LoadLibrary": None,
    "ctypes.cdll.LoadLibrary.*": _FOREIGN,
    "ctypes.pydll.LoadLibrary.*": _FOREIGN,
    # The standard library
    "fcntl.flock": Cause(_LOCKS.does, "lock with LOCK_NB and time.sleep"),
    "fcntl.lockf": Cause(_LOCKS.does, "lock with LOCK_NB and time.sleep"),
    "os.lockf": Cause(_LOCKS.does, "lock with F_TLOCK and time.sleep"),
    "portalocker.lock": Cause(_LOCKS.does, "use portalocker.Lock, which tries again and again"),
    **_each(PIPE, "os.pipe.* os.pipe2.* os.openpty.* pty.openpty.* pty.fork.*"),
    **_each(None, "os.pipe.close os.pipe2.close os.pipe.write os.pipe2.write"),
    **_each(_WAITS, "signal.pause signal.sigtimedwait signal.sigwait signal.sigwaitinfo"),
    **_each(_WHOLE_PROCESS, "signal.alarm signal.setitimer signal.signal signal.set_wakeup_fd"),
    **_each(
        _NATIVE_POLL,
        """
        select.devpoll select.kevent select.kqueue selectors.DevpollSelector
        selectors.KqueueSelector
        """,
    ),
    "gevent.monkey.get_original.*": _WAITS,
    # Event loops
    **_each(
        _LOOP,
        """
        asgiref.sync.async_to_sync curio.run playwright.sync_api trio.run uvloop.new_event_loop
        uvloop.run
        """,
    ),
}
# Below this, what numpy does takes less than a millisecond or two.
_LARGE = 50_000
_SMALL = 10_000
_HEAVY = frozenset(
    {"cholesky", "det", "eig", "eigh", "eigvals", "eigvalsh", "inv", "lstsq", "matrix_power"}
    | {"matrix_rank", "pinv", "qr", "solve", "svd"}
)
# What fails in a thread of the pool, with what is wrong there, and whether it always does.
_GREENLET = "in a thread of the pool: the greenlet may never run there"
_MAIN_THREAD = "in a thread of the pool: signals belong to the main thread; use deadline="
_IN_THREADS = {
    **_each(_GREENLET, "gevent.spawn gevent.spawn_later gevent.Greenlet.spawn"),
    **_each(_MAIN_THREAD, "signal.alarm signal.setitimer signal.signal signal.set_wakeup_fd"),
    "asyncio.get_event_loop": "in a thread of the pool: there is no loop; use asyncio.run",
}
# Words of a call with which it does not wait.
_HARMLESS = {
    "fcntl.flock": ("LOCK_NB", "LOCK_UN"),
    "fcntl.lockf": ("LOCK_NB", "LOCK_UN"),
    "os.lockf": ("F_TLOCK", "F_TEST", "F_ULOCK"),
    "portalocker.lock": ("NON_BLOCKING", "LOCK_NB"),
    "os.waitid": ("WNOHANG",),
    "os.wait3": ("WNOHANG",),
    "os.wait4": ("WNOHANG",),
    "mysql.connector": ("use_pure=True",),
}
# Called anywhere in the filter, these make a library wait cooperatively.
_CURES = {
    "init_gevent": "grpc",
    "patch_psycopg": "psycopg2",
    "set_wait_callback": "psycopg2",
    "install_as_MySQLdb": "MySQLdb",
}


def cause(path: str, size: int | None = None) -> Cause | None:
    """Return what is wrong with a call from the loop; None if nothing is known.

    Args:
        path: what is called, with dots.
        size: how many numbers an array holds that it works on, if that can be seen.
    """
    words = path.split(".")
    if words[0] == "numpy":
        return _numpy(words, size)
    for count in range(len(words), 0, -1):
        stem = ".".join(words[:count])
        for key in (f"{stem}.*", stem) if count < len(words) else (stem,):
            if key in _KNOWN:
                return _keyed(_KNOWN[key], key.removesuffix(".*"))
    return None


def _keyed(found: Cause | None, key: str) -> Cause | None:
    if found is None:
        return None
    return Cause(found.does, found.instead, found.thread, found.blocks, found.is_error, key)


def _numpy(words: list[str], size: int | None) -> Cause | None:
    """Return whether a call of numpy's computes for long; small arrays do not."""
    heavy = words[1:2] == ["linalg"] and words[2:3] and words[2] in _HEAVY
    if (heavy and (size is None or size > _SMALL)) or (size is not None and size >= _LARGE):
        return _keyed(_MAY_COMPUTE, "numpy")
    return None


def trouble_in_thread(path: str) -> str:
    """Return what is wrong with a call from a thread of the pool; "" if nothing is known."""
    words = path.split(".")
    stems = (".".join(words[:count]) for count in range(len(words), 0, -1))
    return next((_IN_THREADS[stem] for stem in stems if stem in _IN_THREADS), "")


def is_harmless(path: str, call: ast.AST) -> bool:
    """Return whether a call's own arguments say that it does not wait."""
    words = next((w for key, w in _HARMLESS.items() if f"{path}.".startswith(f"{key}.")), ())
    text = ast.unparse(call) if words else ""
    return any(word in text for word in words)


def cured(tree: ast.AST) -> set[str]:
    """Return the libraries that a file makes cooperative."""
    names = (
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    )
    return {_CURES[name] for name in names if name in _CURES}
