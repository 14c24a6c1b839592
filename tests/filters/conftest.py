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


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running Redis of the test's own."""
    reason = redis_support.missing()
    if reason is not None:
        unavailable(reason)
    directory = tmp_path / "redis"
    directory.mkdir()
    with RedisServer(directory) as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What ``--store`` takes, once for each kind of store."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/store.sqlite"
    server: RedisServer = request.getfixturevalue("redis_server")
    return server.url


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system that can be full."""
    try:
        with SmallDisk(tmp_path / "disk") as disk:
            yield disk
    except DiskMissing as error:
        unavailable(str(error))
