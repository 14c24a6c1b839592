"""Fixtures for the stock filters: the services that they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import unavailable
from tests.support import redis as redis_support
from tests.support.disk import DiskMissing, SmallDisk
from tests.support.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A running Redis for all tests that leave it running."""
    with _start_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis of the test's own."""
    directory = tmp_path / "redis"
    directory.mkdir()
    with _start_redis(directory) as server:
        yield server


def _start_redis(directory: Path) -> RedisServer:
    reason = redis_support.missing()
    if reason is not None:
        unavailable(reason)
    return RedisServer(directory)


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What ``--store`` takes, once for each kind of store; it is empty."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/store.sqlite"
    server: RedisServer = request.getfixturevalue("shared_redis")
    server.clear()
    return server.url


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system that can be full."""
    try:
        with SmallDisk(tmp_path / "disk") as disk:
            yield disk
    except DiskMissing as error:
        unavailable(str(error))
