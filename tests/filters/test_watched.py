"""Files that are read anew when they change."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from greenfilter.errors import UsageError
from greenfilter.filters._options import Options, parse_network, parse_whole, read_list
from greenfilter.filters._watched import Derived, Watched, WatchedList
from tests.filters.support import log_all

log = logging.getLogger("greenfilter.test")


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    path = tmp_path / "numbers"
    path.write_text("1\n2\n")
    return path


def watch(path: Path) -> Watched[list[int]]:
    return Watched(str(path), lambda path: read_list(path, parse_whole(0, 100)), log)


def test_a_file_is_read_anew_when_it_was_written_or_replaced(numbers: Path) -> None:
    watched = watch(numbers)
    assert watched.value == [1, 2]
    numbers.write_text("3\n")
    assert watched.value == [3]
    other = numbers.with_suffix(".new")
    other.write_text("4\n")
    os.utime(other, ns=(numbers.stat().st_mtime_ns,) * 2)
    other.rename(numbers)
    assert watched.value == [4]


def test_a_file_that_stays_as_it_is_is_read_once(numbers: Path) -> None:
    watched = watch(numbers)
    assert watched.value is watched.value


def test_a_broken_file_is_refused_once_with_its_line_and_the_old_one_goes_on(
    numbers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    watched = watch(numbers)
    numbers.write_text("3\nmany\n")
    assert watched.value == [1, 2]
    assert watched.value == [1, 2]
    numbers.unlink()
    assert watched.value == [1, 2]
    numbers.write_text("3\n")
    assert watched.value == [3]
    assert caplog.messages == [
        f"{numbers}:2: 'many' is not a number from 0 to 100; what was read before goes on",
        f"{numbers}: No such file or directory; what was read before goes on",
        f"{numbers} was read anew",
    ]


def test_each_problem_of_a_broken_file_is_a_line(
    numbers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def read(path: str) -> list[str]:
        found = Path(path).read_text().split()
        if "wrong" in found:
            raise UsageError("\n".join(found))
        return found

    watched = Watched(str(numbers), read, log)
    numbers.write_text("this is wrong")
    assert watched.value == ["1", "2"]
    assert caplog.messages == ["this", "is", "wrong; what was read before goes on"]


def test_what_is_made_of_values_is_made_anew_when_they_change(numbers: Path) -> None:
    made = Derived(WatchedList([[10], watch(numbers), [20]]), tuple)
    assert made.value == (10, 1, 2, 20)
    assert made.value is made.value
    numbers.write_text("5\n")
    assert made.value == (10, 5, 20)


@pytest.fixture
def options() -> Options:
    found = Options("some", "Does something.", "")
    found.add_watched_list("--client", parse_network, "client", "NETWORK")
    return found


def test_an_option_takes_values_and_files(
    options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_all(caplog)
    path = tmp_path / "clients"
    path.write_text("192.0.2.1 # one\n")
    config = tmp_path / "options.toml"
    config.write_text(f'client = ["198.51.100.0/24", "@{path}"]\n')
    clients = options.parse([f"--config={config}", "--client", "::1"]).client
    assert list(map(str, clients)) == ["198.51.100.0/24", "192.0.2.1/32", "::1/128"]
    path.write_text("192.0.2.2\n192.0.2.3\n")
    assert list(map(str, clients))[1:3] == ["192.0.2.2/32", "192.0.2.3/32"]
    assert [(each.name, each.getMessage()) for each in caplog.records] == [
        ("greenfilter.some", f"{path} was read anew")
    ]


def test_an_option_without_values_is_empty_each_time(options: Options) -> None:
    assert list(options.parse(["--client", "::1"]).client) != []
    assert list(options.parse([]).client) == []


def test_a_file_that_is_broken_at_the_start_is_an_error(options: Options, tmp_path: Path) -> None:
    path = tmp_path / "clients"
    path.write_text("\nnobody\n")
    text = f"{path}:2: 'nobody' is not an address or a network"
    with pytest.raises(UsageError, match=text):
        options.parse(["--client", f"@{path}"])
    with pytest.raises(UsageError, match="No such file"):
        options.parse(["--client", "@/nowhere"])
