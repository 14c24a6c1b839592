"""Files, locks on files, signals, and C code that sleeps."""

from ..row import Row, Verdict

_MOVED = {"plain": Verdict.MOVED}

ROWS = (
    Row(
        "file_big",
        "import os",
        """
        name = f"$work/big-{ctx.session.id}"
        with open(name, "wb") as file:
            file.write(b"x" * 10_000_000)
        with open(name, "rb") as file:
            assert len(file.read()) == 10_000_000
        os.unlink(name)
        """,
        plain=Verdict.COMPUTES,
    ),
    Row(
        "fsync",
        "import os",
        """
        name = f"$work/fsync-{ctx.session.id}"
        with open(name, "wb") as file:
            file.write(b"x" * 100_000)
            os.fsync(file.fileno())
        os.unlink(name)
        """,
        plain=Verdict.COMPUTES,
    ),
    Row(
        "flock",
        "import fcntl\nimport socket",
        """
        name = f"lock-{ctx.session.id}"
        with socket.create_connection(("127.0.0.1", $holder)) as holder:
            holder.sendall(f"{name}\\n".encode())
            assert holder.recv(9) == b"held\\n"
        with open(f"$work/{name}", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
        """,
        **_MOVED,
    ),
    Row(
        "signal_alarm",
        "import signal\nimport time",
        """
        def ring(*_):
            raise TimeoutError

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            time.sleep(5)
        except TimeoutError:
            pass
        else:
            raise AssertionError("no alarm")
        """,
        plain=Verdict.FAILS,
        thread=Verdict.FAILS,
    ),
    Row(
        "signal_sigtimedwait",
        "import signal",
        "assert signal.sigtimedwait([signal.SIGUSR1], 0.3) is None",
        **_MOVED,
    ),
    Row("ctypes_usleep", "import ctypes\nC = ctypes.CDLL(None)", "C.usleep(300_000)", **_MOVED),
    Row(
        "maxminddb",
        """
        import maxminddb

        def text(value):
            return bytes([0x40 | len(value)]) + value.encode()

        def uint16(value):
            return b"\\xa2" + value.to_bytes(2, "big")

        # One node, both of whose branches lead to the text "ok".
        TREE = (17).to_bytes(3, "big") * 2 + bytes(16) + text("ok")
        META = {
            "node_count": uint16(1), "record_size": uint16(24), "ip_version": uint16(4),
            "database_type": text("test"), "languages": b"\\x00\\x04", "build_epoch": uint16(1),
            "binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0),
            "description": b"\\xe0",
        }
        with open("$work/test.mmdb", "wb") as file:
            file.write(TREE + b"\\xab\\xcd\\xefMaxMind.com" + bytes([0xE0 | len(META)]))
            file.write(b"".join(text(key) + value for key, value in META.items()))
        READER = maxminddb.open_database("$work/test.mmdb")
        import time
        """,
        'assert READER.get("192.0.2.1") == "ok"\ntime.sleep(0.3)',
    ),
)
