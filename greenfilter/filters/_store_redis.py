"""The store in Redis, for several hosts."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from typing import cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ._store import Change, Result, Store, StoreError, Values

_CONNECTIONS = 64  # of a worker
_LOCKS = 256
_TRIES = 100
# Writes all keys if they still hold what was read; the empty text stands for no entry.
_SWAP = """
local n = #KEYS
for i, key in ipairs(KEYS) do
    if (redis.call('GET', key) or '') ~= ARGV[i] then return 0 end
end
for i, key in ipairs(KEYS) do
    local value = ARGV[n + i]
    if value == '' then redis.call('DEL', key)
    else redis.call('SET', key, value, 'PX', ARGV[2 * n + 1]) end
end
return 1
"""


class RedisStore(Store):
    """A store in Redis.

    Args:
        url: as redis-py takes it.
        shown: the URL without its password.
        timeout: seconds that an operation may wait for the server.

    Raises:
        ValueError: the URL is wrong.
    """

    def __init__(self, url: str, shown: str, timeout: float) -> None:
        super().__init__(shown, timeout)
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            decode_responses=True,
            # Once more on a connection that the server has closed since, but never after a wait.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )
        self._redis = redis.Redis(connection_pool=pool)
        self._swap = self._redis.register_script(_SWAP)
        # Among the sessions of a worker one after the other, so that few have to begin again.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def get_many(self, keys: Sequence[str]) -> Values:
        """Return what some keys hold, in their order."""
        with self._health.watched(redis.RedisError, OSError):
            return cast(Values, self._redis.mget(keys))

    def update(self, keys: Sequence[str], change: Change[Result], lifetime: float) -> Result:
        """Change what some keys hold, all at once. See :meth:`Store.update`."""
        milliseconds = max(1, round(lifetime * 1000))
        with ExitStack() as stack:
            for place in sorted({zlib.crc32(key.encode()) % _LOCKS for key in keys}):
                stack.enter_context(self._locks[place])
            with self._health.watched(redis.RedisError, OSError):
                return self._try(keys, change, milliseconds)

    def close(self) -> None:
        """Close the connections."""
        self._redis.connection_pool.disconnect()

    def _try(self, keys: Sequence[str], change: Change[Result], milliseconds: int) -> Result:
        deadline = time.monotonic() + 2 * self.timeout
        for attempt in range(_TRIES):
            before = cast(Values, self._redis.mget(keys))
            after, result = change(list(before))
            values = [value or "" for value in [*before, *after]]
            if self._swap(keys=list(keys), args=[*values, milliseconds]):
                return result
            if time.monotonic() > deadline:
                break
            time.sleep(random.uniform(0, 0.001 * (attempt + 1)))
        raise StoreError("others change the same entries all the time")
