"""The real OpenSMTPD in the foreground, on loopback, in a world of its own.

smtpd's paths are fixed: it wants /var/spool/smtpd and /var/run/smtpd.sock. So each runs in a mount
namespace where those lie on empty file systems; the system's own smtpd and other runs of the tests
are neither seen nor disturbed. The namespace also tells which processes are its.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from .wait import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .sink import Sink

# Another server than the installed one: the path of its smtpd.
SMTPD: Final = os.environ.get("GREENFILTER_SMTPD", "/usr/sbin/smtpd")
_FILTER_NAME = "SMTPD_FILTER_NAME"  # tells in a filter's environment which one it is

# smtpd gets SIGTERM if the test process dies, even by SIGKILL.
_LAUNCH = """
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/spool
mkdir -m 711 /var/spool/smtpd
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
exec setpriv --pdeathsig TERM "$2" -d -f "$1/smtpd.conf"
"""


@cache
def version() -> tuple[int, int]:
    """Return the server's own, such as (6, 8); (0, 0) where there is none."""
    if not os.access(SMTPD, os.X_OK):
        return 0, 0
    done = subprocess.run([SMTPD, "-h"], capture_output=True, text=True)
    found = re.search(r"OpenSMTPD (\d+)\.(\d+)", done.stdout + done.stderr)
    assert found is not None, done
    return int(found[1]), int(found[2])


class SmtpdError(Exception):
    """smtpd did not start, or did not stop, as it should. The text holds its log."""


def missing() -> str | None:
    """Return why the real smtpd cannot run here, or None if it can."""
    if not os.access(SMTPD, os.X_OK):
        return f"{SMTPD} is not installed (Debian: opensmtpd; or name one in GREENFILTER_SMTPD)"
    if os.geteuid() != 0:
        return "smtpd runs as root only"
    if not (shutil.which("unshare") and shutil.which("setpriv")):
        return "unshare and setpriv are not installed (Debian: util-linux)"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return "mount namespaces are not allowed here"
    return None


class Smtpd:
    """One running smtpd. Use it with ``with``.

    Args:
        filters: name -> command line. The command must begin with an absolute path (smtpd looks
            for others in its own libexec directory).
        chain: names of the filters of the listener, in order; all of them by default.
        relay_filter: name of the filter that gets the smtp-out reports, or None.
        sink: server that every message is relayed to. Without one, messages stay in the queue.
        extra_conf: lines that are put before the listeners in smtpd.conf.
        listen_options: what to add to the filtered ``listen on`` lines.
        start_timeout: seconds to wait for the banner.

    Attributes:
        port: listener with the filters.
        proxy_port: the same for clients that send a PROXY v2 header first.
        plain_port: listener without filters.
        log: lines of smtpd and, behind ``NAME: ``, of its filters' stderr, so far.
        running: all that run now.
    """

    running: ClassVar[set[Smtpd]] = set()

    def __init__(
        self,
        filters: Mapping[str, str] | None = None,
        *,
        chain: Sequence[str] | None = None,
        relay_filter: str | None = None,
        sink: Sink | None = None,
        extra_conf: str = "",
        listen_options: str = "",
        start_timeout: float = 20.0,
    ) -> None:
        self.filters = dict(filters or {})
        self.chain = list(self.filters) if chain is None else list(chain)
        self.relay_filter = relay_filter
        self.sink = sink
        self.extra_conf = extra_conf
        self.listen_options = listen_options
        self.start_timeout = start_timeout
        self.port = self.proxy_port = self.plain_port = 0
        self.log: list[str] = []
        self._new_log = threading.Condition()
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._namespace: str | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Smtpd:
        try:
            self.start()
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.alive():
                self.stop()
        finally:
            self._clean_up()

    # Starting

    def start(self) -> None:
        """Start smtpd and wait for its banner, which it holds back until every filter is ready.

        Raises:
            SmtpdError: smtpd ended, or no banner came in time.
        """
        for _ in range(5):
            self._launch()
            try:
                wait_until(self._has_banner, self.start_timeout, "smtpd's banner")
                return
            except SmtpdError:
                # Somebody else took a port after it was chosen.
                if not any("Address already in use" in line for line in self.log):
                    raise
                self._clean_up()
            except TimeoutError as error:
                raise SmtpdError(self._with_log(str(error))) from None
        raise SmtpdError("no free ports")

    def _launch(self) -> None:
        self.log.clear()
        self.port, self.proxy_port, self.plain_port = _free_ports(3)
        self._directory = directory = Path(tempfile.mkdtemp(prefix="smtpd-"))
        (directory / "smtpd.conf").write_text(self._conf())
        # Names are resolved without leaving this machine: nothing answers on port 53.
        (directory / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
        (directory / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private"]
            + ["sh", "-ec", _LAUNCH, "sh", str(directory), SMTPD],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.running.add(self)
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()

    def _conf(self) -> str:
        lines = [
            f'filter "{name}" proc-exec "/usr/bin/env {_FILTER_NAME}={name} {command}" user root'
            for name, command in self.filters.items()
        ]
        options = f"hostname mx.example.org {self.listen_options}"
        if len(self.chain) > 1:
            members = ", ".join(f'"{name}"' for name in self.chain)
            lines.append(f'filter "all-of-them" chain {{ {members} }}')
        name = "all-of-them" if len(self.chain) > 1 else "".join(self.chain)
        filtered = f'filter "{name}"' if name else ""
        relay_filter = f'filter "{self.relay_filter}"' if self.relay_filter else ""
        addresses, port = (self.sink.addresses, self.sink.port) if self.sink else (["127.0.0.1"], 1)
        sinks = ", ".join(f'"smtp://{address}:{port}"' for address in addresses)
        lines += [
            f"table sinks {{ {sinks} }}",
            "mta limit session-keepalive 0",
            self.extra_conf,
            f"listen on socket {filtered}",
            f"listen on 127.0.0.1 port {self.port} {options} {filtered}",
            f"listen on 127.0.0.1 port {self.proxy_port} proxy-v2 {options} {filtered}",
            f"listen on 127.0.0.1 port {self.plain_port} hostname mx.example.org",
            f'action "out" relay host <sinks> {relay_filter}',
            'match from any for any action "out"',
        ]
        return "\n".join(lines) + "\n"

    def _has_banner(self) -> bool:
        if self._namespace is None:
            self._namespace = self._find_namespace()
        if not self.alive():
            assert self._reader is not None
            self._reader.join(1)
            raise SmtpdError(self._with_log("smtpd ended at its start"))
        try:
            with socket.create_connection(("127.0.0.1", self.plain_port), 1) as client:
                client.settimeout(self.start_timeout)
                return client.recv(512).startswith(b"220 ")
        except OSError:
            return False

    def _find_namespace(self) -> str | None:
        assert self._process is not None
        found = _namespace_of(self._process.pid)
        return None if found == _namespace_of(os.getpid()) else found

    # Its log

    def _read_log(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                with self._new_log:
                    self.log.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))
                    self._new_log.notify_all()

    def wait_for_log(self, pattern: str, timeout: float = 10.0, *, start: int = 0) -> re.Match[str]:
        """Wait for a log line that ``pattern`` (a regular expression) is found in.

        Args:
            pattern: searched in each line, past ones too.
            timeout: seconds.
            start: index in ``log`` to begin at.

        Raises:
            AssertionError: none came in time.
        """
        deadline = time.monotonic() + timeout
        with self._new_log:
            while True:
                for line in self.log[start:]:
                    if match := re.search(pattern, line):
                        return match
                start = len(self.log)
                if not self._new_log.wait(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(self._with_log(f"no log line matches {pattern!r}"))

    def last_log(self) -> str:
        """Return the last 60 lines of the log."""
        return "\n".join(self.log[-60:]) or "(empty)"

    def _with_log(self, text: str) -> str:
        return f"{text}\nsmtpd's log:\n{self.last_log()}"

    # Its processes

    def alive(self) -> bool:
        """Return whether smtpd's parent process runs."""
        return self._process is not None and self._process.poll() is None

    def pids(self) -> list[int]:
        """Return the processes of this smtpd: its own, its filters and what these started."""
        if self._namespace is None:
            return []
        return [pid for pid in _all_pids() if _namespace_of(pid) == self._namespace]

    def filter_pids(self) -> list[int]:
        """Return those of :meth:`pids` that are not smtpd itself."""
        return [pid for pid in self.pids() if _command_name(pid) not in ("smtpd", "")]

    def filter_pid(self, name: str) -> int:
        """Return the process of the filter ``name`` that smtpd started.

        Raises:
            LookupError: it does not run.
        """
        for pid in self.filter_pids():
            if (
                _environment(pid).get(_FILTER_NAME) == name
                and _command_name(_parent(pid)) == "smtpd"
            ):
                return pid
        raise LookupError(f"filter {name} does not run")

    def sendmail(self, message: bytes, *arguments: str) -> None:
        """Submit a message over this smtpd's local socket, as sendmail(8) does.

        Raises:
            subprocess.CalledProcessError: it was refused.
        """
        assert self._process is not None
        assert self._directory is not None
        # smtpctl(8) is sendmail when it is called so; the installed one may be another server's.
        sendmail = self._directory / "sendmail"
        if not sendmail.exists():
            sendmail.symlink_to(Path(SMTPD).with_name("smtpctl"))
        enter = ["nsenter", "--mount", "--target", str(self._process.pid)]
        subprocess.run([*enter, sendmail, *arguments], input=message, check=True, timeout=30)

    # Stopping

    def stop(self, timeout: float = 10.0) -> float:
        """Send SIGTERM and wait until every process is gone.

        Returns:
            Seconds until the last filter process had ended.

        Raises:
            SmtpdError: processes were left after ``timeout`` seconds; they were killed.
        """
        assert self._process is not None
        filters = self.filter_pids()
        begun = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        took = 0.0

        def all_gone() -> bool:
            nonlocal took
            left = [pid for pid in filters if _namespace_of(pid) == self._namespace]
            if not left and not took:
                took = time.monotonic() - begun
            return not left and not self.alive() and not self.pids()

        try:
            wait_until(all_gone, timeout, "smtpd's processes to end")
        except TimeoutError:
            left = [f"{pid} {_command_name(pid)}" for pid in self.pids()]
            raise SmtpdError(self._with_log(f"left after SIGTERM: {left}")) from None
        finally:
            self._clean_up()
        return took

    def _clean_up(self) -> None:
        """Kill whatever is left and remove the directory. Does nothing the second time."""
        if self._process is None:
            return
        self._namespace = self._namespace or self._find_namespace()
        self._process.kill()
        while left := self.pids():
            for pid in left:
                _kill(pid)
            time.sleep(0.005)
        self._process.wait()
        if self._reader is not None:
            self._reader.join()
        if self._directory is not None:
            shutil.rmtree(self._directory)
        self._process = self._namespace = self._directory = self._reader = None
        self.running.discard(self)


def _free_ports(count: int) -> list[int]:
    """Choose ports below those that the kernel hands out by itself."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10000, 30000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _namespace_of(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _command_name(pid: int) -> str:
    return _read(pid, "comm").decode().strip()


def _environment(pid: int) -> dict[str, str]:
    entries = _read(pid, "environ").decode("utf-8", "replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _parent(pid: int) -> int:
    match = re.search(rb"^PPid:\s*(\d+)", _read(pid, "status"), re.MULTILINE)
    return int(match[1]) if match else 0


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
