"""The spool keeps lines exact, in bounded memory, and says plainly when it cannot."""

from __future__ import annotations

import fcntl
import gc
import io
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenfilter._mail.spool import BATCH_BYTES, Spool
from greenfilter.errors import MessageTooBig, SpoolError

LINE = st.one_of(
    st.binary(max_size=40).map(lambda data: data.translate(None, b"\n\0")),
    st.text("\r\t .a\xff", max_size=8).map(lambda text: text.encode("latin-1")),
)
CHUNKS = st.lists(st.lists(LINE, max_size=6), max_size=12)


def flat(batches):
    return [line for batch in batches for line in batch]


def temporary_files():
    """The descriptors of this process that are files without a name."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.endswith("(deleted)"):
            found.append(int(fd))
    return found


@given(CHUNKS, st.integers(0, 200), st.integers(1, 64))
def test_any_lines_in_any_chunks_come_out_the_same(chunks, memory_bytes, batch_bytes):
    spool = Spool(memory_bytes=memory_bytes)
    for chunk in chunks:
        spool.append(chunk)
    lines = flat(chunks)
    stored = b"".join(line + b"\r\n" for line in lines)

    assert flat(spool.batches(batch_bytes=batch_bytes)) == lines
    assert flat(spool.batches()) == lines
    assert spool.read() == stored
    assert spool.size == len(stored)
    assert spool.open().read() == stored
    spool.close()


@given(st.lists(LINE, min_size=1, max_size=20), st.data())
def test_any_part_reads_the_same_from_memory_and_file(lines, data):
    stored = b"".join(line + b"\r\n" for line in lines)
    spool = Spool(memory_bytes=data.draw(st.integers(0, len(stored) + 1)))
    for line in lines:
        spool.append([line])
    start = data.draw(st.integers(0, len(stored) + 3))
    end = data.draw(st.none() | st.integers(0, len(stored) + 3))

    assert spool.read(start, end) == stored[start:end]
    spool.close()


@given(st.lists(st.tuples(st.booleans(), st.lists(LINE, max_size=4)), max_size=30))
def test_a_reader_follows_while_lines_are_appended(steps):
    spool = Spool(memory_bytes=50)
    position, seen = 0, []
    for read_now, chunk in steps:
        spool.append(chunk)
        if read_now:
            lines, position = spool.read_lines(position, 16)
            seen += lines
    seen += flat(spool.batches(position))

    assert seen == flat(chunk for _, chunk in steps)
    spool.close()


def test_every_memory_limit_around_the_size_gives_the_same_bytes():
    lines = [b"", b"a\r", b"\xff" * 9, b"\r", b".", b"end"]
    stored = b"".join(line + b"\r\n" for line in lines)
    for memory_bytes in range(len(stored) + 2):
        before = len(temporary_files())
        spool = Spool(memory_bytes=memory_bytes)
        for line in lines:
            spool.append([line])
        assert spool.read() == stored
        assert flat(spool.batches(batch_bytes=1)) == lines
        in_file = len(temporary_files()) - before
        assert in_file == (len(stored) > memory_bytes)
        spool.close()
        assert len(temporary_files()) == before


def test_position_after_a_batch_is_where_the_next_line_begins():
    spool = Spool()
    spool.append([b"one", b"two", b"three"])

    lines, position = spool.read_lines(0, 11)
    assert (lines, position) == ([b"one", b"two"], 10)
    assert flat(spool.batches(position)) == [b"three"]
    assert spool.read_lines(17) == ([], 17)


def test_a_line_longer_than_a_batch_is_returned_whole():
    spool = Spool()
    spool.append([b"x" * 300_000, b"y"])

    assert flat(spool.batches()) == [b"x" * 300_000, b"y"]
    assert flat(spool.batches(batch_bytes=1)) == [b"x" * 300_000, b"y"]


def test_batches_are_bounded():
    spool = Spool(memory_bytes=1000)
    for _ in range(100):
        spool.append([b"x" * 70] * 100)

    sizes = [sum(len(line) + 2 for line in batch) for batch in spool.batches()]
    assert sum(sizes) == spool.size
    assert max(sizes) <= BATCH_BYTES
    spool.close()


def test_a_thread_reads_exact_lines_while_another_appends():
    lines = [b"%d\r" % number for number in range(60_000)]
    spool = Spool(memory_bytes=4096)
    done = threading.Event()
    seen = []

    def follow():
        position = 0
        while True:
            was_done = done.is_set()
            batch, position = spool.read_lines(position, 3000)
            seen.extend(batch)
            if was_done and not batch:
                return

    reader = threading.Thread(target=follow)
    reader.start()
    for start in range(0, len(lines), 7):
        spool.append(lines[start : start + 7])
    done.set()
    reader.join(30)

    assert not reader.is_alive()
    assert seen == lines
    spool.close()


def test_a_descriptor_is_not_reused_while_a_reader_may_still_use_it():
    before = set(temporary_files())
    spool = Spool(memory_bytes=0)
    spool.append([b"x" * 5000])
    (fd,) = set(temporary_files()) - before
    file = spool._current()[0]  # what a read() in another thread holds
    spool.close()

    assert os.fstat(fd).st_size == 0
    with pytest.raises(OSError, match="cut short"):
        file.read(0, 5002)
    del file
    assert fd not in temporary_files()


def test_the_temporary_file_is_private_nameless_and_not_inherited(tmp_path):
    before = set(temporary_files())
    spool = Spool(memory_bytes=0, directory=str(tmp_path))
    spool.append([b"secret"])

    (fd,) = set(temporary_files()) - before
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert os.listdir(tmp_path) == []
    spool.close()


def test_close_releases_the_file_and_may_be_repeated():
    before = temporary_files()
    spool = Spool(memory_bytes=0)
    spool.append([b"x"])
    file = spool.open()
    assert file.read(1) == b"x"
    spool.close()
    spool.close()

    assert temporary_files() == before
    assert spool.size == 0
    for use in (spool.read, lambda: spool.append([b"y"]), lambda: next(spool.batches())):
        with pytest.raises(SpoolError, match="closed"):
            use()
    with pytest.raises(SpoolError, match="closed"):
        spool.open().read()


def test_a_forgotten_spool_releases_its_file():
    before = temporary_files()
    spool = Spool(memory_bytes=0)
    spool.append([b"x"])
    assert temporary_files() != before
    del spool
    gc.collect()

    assert temporary_files() == before


def test_a_message_at_the_limit_is_kept_and_one_byte_more_refused():
    spool = Spool(max_bytes=10, memory_bytes=0)
    spool.append([b"123", b"456"])
    assert spool.size == 10

    with pytest.raises(MessageTooBig, match="limit of 10 bytes"):
        spool.append([b""])
    assert spool.size == 0


def test_a_too_big_message_leaves_nothing_behind():
    before = temporary_files()
    spool = Spool(max_bytes=100, memory_bytes=10)
    spool.append([b"x" * 50])
    with pytest.raises(MessageTooBig):
        spool.append([b"x" * 50])

    assert temporary_files() == before


def test_appending_no_lines_stores_nothing():
    spool = Spool()
    spool.append([])
    assert (spool.size, spool.read(), flat(spool.batches())) == (0, b"", [])


# -- file objects


@given(
    st.lists(LINE, max_size=10),
    st.integers(0, 40),
    st.lists(
        st.tuples(st.sampled_from(["read", "seek", "end", "line"]), st.integers(0, 60)),
        max_size=10,
    ),
)
def test_a_file_object_behaves_as_bytesio(lines, memory_bytes, steps):
    spool = Spool(memory_bytes=memory_bytes)
    spool.append(lines)
    ours, reference = spool.open(), io.BytesIO(spool.read())
    for step, number in steps:
        if step == "read":
            assert ours.read(number) == reference.read(number)
        elif step == "line":
            assert ours.readline() == reference.readline()
        elif step == "seek":
            assert ours.seek(number) == reference.seek(number)
        else:
            back = -min(number, spool.size)
            assert ours.seek(back, io.SEEK_END) == reference.seek(back, io.SEEK_END)
        assert ours.tell() == reference.tell()
    assert ours.read() == reference.read()
    spool.close()


def test_file_objects_are_independent_and_read_only():
    spool = Spool(memory_bytes=3)
    spool.append([b"abc", b"def"])
    one, other = spool.open(), spool.open()

    assert one.read(4) == b"abc\r"
    assert other.read() == b"abc\r\ndef\r\n"
    assert one.read() == b"\ndef\r\n"
    assert one.seekable()
    assert one.readable()
    assert not one.writable()
    with pytest.raises(io.UnsupportedOperation):
        one.write(b"x")
    spool.close()


def test_a_file_object_refuses_bad_seeks():
    file = Spool().open()
    with pytest.raises(ValueError, match="before the start"):
        file.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        file.raw.seek(0, 9)


# -- real errors of the system


def test_a_directory_that_is_missing_is_named():
    spool = Spool(memory_bytes=0, directory="/nonexistent/spool")
    with pytest.raises(SpoolError, match=r"/nonexistent/spool.*No such file.*TMPDIR"):
        spool.append([b"x"])
    assert spool.size == 0


def run_python(code, *args, prefix=()):
    """Run code in a process of its own, for what it does to the process."""
    return subprocess.run(
        [*prefix, sys.executable, "-c", textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        timeout=50,
    )


def test_a_file_size_limit_is_a_spool_error_and_the_next_message_works(tmp_path):
    result = run_python(
        """
        import os, resource, sys
        from greenfilter._mail.spool import Spool
        from greenfilter.errors import SpoolError

        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        for _ in range(2):
            spool = Spool(memory_bytes=1000, directory=sys.argv[1])
            try:
                while True:
                    spool.append([b"x" * 70] * 100)
            except SpoolError as error:
                print(error)
            assert spool.size == 0
            assert not [fd for fd in os.listdir("/proc/self/fd")
                        if os.path.exists(f"/proc/self/fd/{fd}")
                        and os.readlink(f"/proc/self/fd/{fd}").endswith("(deleted)")]
        try:
            Spool(directory=sys.argv[1], memory_bytes=1000).append([b"x" * 300_000])
        except SpoolError as error:
            print(error)
        small = Spool(memory_bytes=1000, directory=sys.argv[1])
        small.append([b"y" * 2000])
        assert small.read() == b"y" * 2000 + b"\\r\\n"
        """,
        str(tmp_path),
    )
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first == second
    assert "300002 bytes" in third
    assert str(tmp_path) in first
    assert "File too large" in first
    assert "RLIMIT_FSIZE" in first


def test_a_full_disk_is_a_spool_error_and_gives_its_space_back(tmp_path):
    # A mount namespace of its own: nothing stays mounted, whatever happens.
    isolated = ["unshare", "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run([*isolated, *mount], capture_output=True).returncode != 0:
        pytest.skip("needs root to mount a small file system")
    result = run_python(
        """
        import subprocess, sys
        from greenfilter._mail.spool import Spool
        from greenfilter.errors import SpoolError

        directory, *mount = sys.argv[1:]
        subprocess.run(mount, check=True)
        other = Spool(memory_bytes=1000, directory=directory)
        other.append([b"kept"] * 1000)
        spool = Spool(memory_bytes=1000, directory=directory)
        try:
            while True:
                spool.append([b"x" * 70] * 100)
        except SpoolError as caught:
            error = caught  # with its traceback, which keeps what its frames name
        print(error)
        assert spool.size == 0
        assert other.read() == b"kept\\r\\n" * 1000

        spool = Spool(memory_bytes=1000, directory=directory)
        spool.append([b"x" * 70] * 2000)
        assert sum(map(len, spool.batches())) == 2000
        """,
        str(tmp_path),
        *mount,
        prefix=isolated,
    )
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path}: No space left on device; free space" in result.stdout


def test_100_megabytes_go_in_and_out_in_a_few_mebibytes_of_memory():
    result = run_python(
        """
        import resource
        from greenfilter._mail.message import Message
        from greenfilter._mail.spool import Spool

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        chunk = [b"%070d" % number for number in range(900)]
        before = peak()
        spool = Spool()
        spool.append([b"Subject: big", b""])
        for _ in range(1_540):
            spool.append(chunk)
        assert spool.size > 99_000_000
        assert sum(map(len, spool.batches())) == 2 + 1_540 * 900
        message = Message(spool)
        message.headers.prepend("X-Checked", "yes")
        assert sum(map(len, message.lines())) == 3 + 1_540 * 900
        with message.open() as file:
            assert sum(1 for _ in file) == 3 + 1_540 * 900
        print(peak() - before)
        """
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 8 * 1024


def test_memory_and_files_come_from_the_default_directory_when_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(SpoolError, match="gone"):
        Spool(memory_bytes=0).append([b"x"])
