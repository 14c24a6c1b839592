"""Real servers on free loopback ports, each with its data in a scratch directory."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import ipaddress
import json
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dkim
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HOST: Final = "127.0.0.1"
_ROOT: Final = Path(__file__).parents[2]
_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 10.0
# Where Debian keeps what is in no user's PATH.
_PATH: Final = os.pathsep.join(
    [
        os.environ.get("PATH", ""),
        "/usr/sbin",
        "/sbin",
        *map(str, Path("/").glob("usr/lib/postgresql/*/bin")),
    ]
)
_RELAYED: Final = ("redis", "memcached", "slapd", "clamd", "rspamd")


class ServerMissing(Exception):
    """A server is not installed here."""


class Servers:
    """Servers that start when they are first asked for. Use it with ``with``.

    Attributes:
        directory: scratch, for the filters too: ``msg.eml`` is signed, ``locked.db`` is locked.
    """

    def __init__(self) -> None:
        self.directory = Path()
        self._stack = contextlib.ExitStack()
        self._ports: dict[str, int] = {}
        self._processes: list[tuple[subprocess.Popen[bytes], Path]] = []

    def __enter__(self) -> Servers:
        with contextlib.ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix="libraries-"))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.directory.chmod(0o711)  # servers with a user of their own pass through
            stack.callback(self._stop)
            _make_files(self.directory)
            locker = sqlite3.connect(self.directory / "locked.db")
            stack.callback(locker.close)
            locker.executescript("create table t (n); begin exclusive")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def port(self, name: str) -> int:
        """Return the port of a server, started if it does not run yet.

        Args:
            name: a real server (``redis``), its slow relay (``redis_slow``), or one of slow.py.

        Raises:
            ServerMissing: it is not installed.
            RuntimeError: it did not start; the text holds its log.
        """
        if name not in self._ports:
            if name.removesuffix("_slow") in _RELAYED and name.endswith("_slow"):
                real = name.removesuffix("_slow")
                self._ports[name] = self._slow(f"{name}={self.port(real)}")[name]
            elif name in _START:
                self._ports[name] = _START[name](self)
            else:
                self._ports.update(self._slow())
        return self._ports[name]

    # What the servers below need

    def scratch(self, name: str, user: str | None = None) -> Path:
        """Make a directory for a server, which belongs to its user."""
        path = self.directory / name
        path.mkdir()
        if user is not None:
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        return path

    def start(self, name: str, *command: str | Path, user: str | None = None) -> Path:
        """Start a server, which dies with this process, and return its log."""
        log = self.directory / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=_ROOT,
                start_new_session=True,
                **_as(user),
            )
        self._processes.append((process, log))
        return log

    def run(self, *command: str | Path, user: str | None = None) -> None:
        """Run a command that prepares a server."""
        done = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, cwd="/", **_as(user)
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")

    def wait(self, is_up: Callable[[], bool]) -> None:
        """Wait until the server that was started last is up."""
        process, log = self._processes[-1]
        end = time.monotonic() + _START_SECONDS
        while not is_up():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _slow(self, *relays: str) -> dict[str, int]:
        return self.python("tests.libraries.slow", self.directory, *relays)

    def python(self, module: str, *arguments: str | Path) -> dict[str, int]:
        """Start a server that is a module of ours, and return the ports that it prints."""
        name = f"{module}{len(self._processes)}"
        log = self.start(name, sys.executable, "-m", module, *arguments)
        self.wait(lambda: log.read_text().startswith("{") and "}" in log.read_text())
        ports: dict[str, int] = json.loads(log.read_text().splitlines()[0])
        return ports

    def _stop(self) -> None:
        for process, _ in self._processes:
            process.terminate()
        for process, _ in self._processes:
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def find(program: str) -> str:
    """Return the path of a server's program."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise ServerMissing(f"{program} is not installed")
    return path


def _as(user: str | None) -> dict[str, str]:
    """Return what makes a process another user's, where this one is root."""
    return {"user": user, "group": pwd.getpwnam(user).pw_gid} if user else {}  # type: ignore[dict-item]


def _unless_self(user: str) -> str | None:
    """Name the user that a server wants to be, if this process may choose."""
    return user if os.geteuid() == 0 else None


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _listens(port: int) -> Callable[[], bool]:
    def is_up() -> bool:
        try:
            socket.create_connection((_HOST, port), 1.0).close()
        except OSError:
            return False
        return True

    return is_up


def _start_plain(
    servers: Servers, name: str, command: Sequence[str | Path], port: int, user: str | None = None
) -> int:
    servers.start(name, *command, user=user)
    servers.wait(_listens(port))
    return port


def _redis(servers: Servers) -> int:
    port, home = _free_port(), servers.scratch("redis")
    command = [find("redis-server"), "--port", port, "--bind", _HOST, "--dir", home, "--save", ""]
    return _start_plain(servers, "redis", [str(word) for word in command], port)


def _memcached(servers: Servers) -> int:
    port = _free_port()
    command = [find("memcached"), "-l", _HOST, "-p", str(port), "-U", "0"]
    return _start_plain(servers, "memcached", command, port, _unless_self("nobody"))


def _postgres(servers: Servers) -> int:
    port, user = _free_port(), _unless_self("postgres")
    initdb, postgres = find("initdb"), find("postgres")
    home = servers.scratch("postgres", user)
    data = home / "data"
    servers.run(
        initdb, "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "--no-locale", user=user
    )
    options = {"port": port, "listen_addresses": _HOST, "unix_socket_directories": home}
    options |= {"fsync": "off", "max_connections": 200}
    words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
    servers.start("postgres", postgres, "-D", data, *words, user=user)
    servers.wait(lambda: "ready to accept connections" in _log(servers, "postgres"))
    return port


def _mariadb(servers: Servers) -> int:
    port, user = _free_port(), _unless_self("mysql")
    mariadbd, install = find("mariadbd"), find("mariadb-install-db")
    home = servers.scratch("mariadb", user)
    data = home / "data"
    servers.run(
        install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
        "--skip-test-db", user=user,
    )  # fmt: skip
    accounts = home / "accounts.sql"
    accounts.write_text(
        "create database filter;\n"
        "create user filter@'127.0.0.1' identified by 'filter';\n"
        "grant all on filter.* to filter@'127.0.0.1';\n"
    )
    servers.start(
        "mariadb", mariadbd, "--no-defaults", f"--datadir={data}", f"--port={port}",
        f"--bind-address={_HOST}", f"--socket={home}/socket", f"--init-file={accounts}",
        "--max-connections=300", "--skip-log-bin", "--skip-name-resolve", user=user,
    )  # fmt: skip
    servers.wait(_listens(port))
    return port


def _slapd(servers: Servers) -> int:
    port, home = _free_port(), servers.scratch("slapd")
    (home / "data").mkdir()
    conf = home / "slapd.conf"
    conf.write_text(
        "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n"
        f'pidfile {home}/pid\ndatabase mdb\nsuffix "dc=x"\nrootdn "cn=admin,dc=x"\n'
        f"rootpw secret\ndirectory {home}/data\n"
    )
    url = f"ldap://{_HOST}:{port}"
    return _start_plain(servers, "slapd", [find("slapd"), "-d", "0", "-f", conf, "-h", url], port)


def _clamd(servers: Servers) -> int:
    port, home = _free_port(), servers.scratch("clamd")
    (home / "database").mkdir()
    # The signature of a file that says "virus" 20 times: MD5, size, name.
    virus = b"virus" * 20
    signature = f"{hashlib.md5(virus).hexdigest()}:{len(virus)}:Test.Virus\n"
    (home / "database" / "test.hdb").write_text(signature)
    conf = home / "clamd.conf"
    conf.write_text(
        f"DatabaseDirectory {home}/database\nTCPSocket {port}\nTCPAddr {_HOST}\nForeground yes\n"
        "MaxThreads 50\n"
    )
    return _start_plain(servers, "clamd", [find("clamd"), "--config-file", conf], port)


def _rspamd(servers: Servers) -> int:
    port, user = _free_port(), _unless_self("_rspamd")
    home = servers.scratch("rspamd", user)
    conf = home / "rspamd.conf"
    conf.write_text(
        f'options {{ pidfile = "{home}/pid"; filters = ""; dns {{ nameserver = ["{_HOST}"]; }} }}\n'
        'logging { type = "console"; level = "error"; }\n'
        f'worker "normal" {{ bind_socket = "{_HOST}:{port}"; count = 1; }}\n'
    )
    return _start_plain(
        servers, "rspamd", [find("rspamd"), "--insecure", "-f", "-c", conf], port, user
    )


def _grpc(servers: Servers) -> int:
    return servers.python("tests.libraries.grpc_server")["grpc"]


_START: Final = {
    "redis": _redis,
    "memcached": _memcached,
    "postgres": _postgres,
    "mariadb": _mariadb,
    "slapd": _slapd,
    "clamd": _clamd,
    "rspamd": _rspamd,
    "grpc": _grpc,
}


def _log(servers: Servers, name: str) -> str:
    return (servers.directory / f"{name}.log").read_text()


def _make_files(directory: Path) -> None:
    """Make a certificate for 127.0.0.1, a DKIM key and a message that is signed with it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (directory / "key.pem").write_bytes(pem)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _HOST)])
    today = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address(_HOST))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (directory / "dkim.pub").write_text(base64.b64encode(public).decode())
    message = b"From: a@example.com\r\nTo: b@example.org\r\nSubject: hello\r\n\r\nhello\r\n"
    signature = dkim.sign(message, b"sel", b"example.com", pem)
    (directory / "msg.eml").write_bytes(signature + message)
