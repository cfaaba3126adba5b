"""Reads through Redis, for workers whose keys a `redis-invalidate` deletes: an old value is not put back.

Talks to the one Redis server that it is given. Three things together keep an old value out. A deleted key leaves a
mark for `tombstone_ttl` seconds; while there is one, nothing is kept. A value that took longer to read than half
of that is not kept either. So a value that is kept was read more than half that time behind the deletion, or before
it, and then the deletion removes it. Every time is taken from the Redis server's clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cdc.errors import ConfigurationError
from cdc.sinks.key_template import KeyTemplate
from cdc.sinks.redis_invalidate import client_of, tombstone

if TYPE_CHECKING:
    import redis

__all__ = ["RedisCache"]

_KEEP = """
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return 0 end
local now = redis.call('TIME')
if now[1] * 1000000 + now[2] - ARGV[2] > tonumber(ARGV[3]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[4])
return 1
"""


class RedisCache:
    """Values by key in Redis, each loaded when it is missing.

    Sound while a commit becomes visible to loads within half of `tombstone_ttl` after the sink has heard of it. That
    holds for loads from a replica whose replay lags less than that, too.

    Args:
        server: a URL, or a redis.Redis of yours; the primary, not a replica.
        template: the key, as the sink has it, such as `"well:{id}"`.
        ttl: seconds that a value lives at most.
        tombstone_ttl: the sink's, the very same number.
        dumps, loads: make bytes or text of a value, and the value again.

    Raises ConfigurationError.
    """

    def __init__(
        self,
        server: str | redis.Redis,
        template: str,
        *,
        ttl: float,
        tombstone_ttl: float,
        dumps: Callable[[Any], bytes | str] = json.dumps,
        loads: Callable[[bytes], Any] = json.loads,
    ) -> None:
        for name, value in (("ttl", ttl), ("tombstone_ttl", tombstone_ttl)):
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigurationError(f"{name} is a number of seconds above 0, not {value!r}")
        self._template = KeyTemplate(template)
        self._life, self._limit = max(1, round(ttl * 1000)), int(tombstone_ttl * 500_000)
        self._dumps, self._loads = dumps, loads
        self._client = client_of(server)
        self._keep = self._client.register_script(_KEEP)

    def fetch(self, load: Callable[[], Any], **columns: Any) -> Any:
        """The value for these columns, from Redis or by `load()`.

        Args:
            load: reads the value from the database, outside of any transaction that has begun before.
            columns: the template's, as the database writes them: `id=33`; None stands for NULL.

        Raises TypeError for other columns, redis.RedisError when the server does not answer, and what `load` raises.
        """
        if columns.keys() != set(self._template.columns):
            raise TypeError(f"{self._template.text} takes {', '.join(self._template.columns)}, not {list(columns)}")
        key = self._template.of({name: _text(value) for name, value in columns.items()})
        with self._client.pipeline(transaction=True) as pipe:
            seconds, microseconds, found = self._asked(pipe, key)
        if found is not None:
            return self._loads(found)
        value = load()
        marks = (tombstone(key), tombstone(self._template.text))
        began = seconds * 1_000_000 + microseconds
        self._keep(keys=[key, *marks], args=[self._dumps(value), began, self._limit, self._life])
        return value

    @staticmethod
    def _asked(pipe: Any, key: str) -> tuple[int, int, bytes | None]:
        """The server's time, and what it has under the key."""
        pipe.time()
        pipe.get(key)
        (seconds, microseconds), found = pipe.execute()
        return seconds, microseconds, found

    def __repr__(self) -> str:
        return f"RedisCache({self._template.text!r})"


def _text(value: Any) -> str | None:
    """A value as PostgreSQL writes it."""
    if value is None or isinstance(value, str):
        return value
    return ("t" if value else "f") if isinstance(value, bool) else str(value)
