"""The sink `redis-invalidate`: changes delete keys of a Redis (or Valkey) server.

Talks to the one server that it is given, by redis-py, the extra `redis`. It returns when the server has deleted the
keys, which acknowledges the change; while the server cannot be reached it raises, and the position stays.

The stream is ahead of what a new snapshot of the database shows. So somebody who misses a deleted key may read the old
row, and put it back. `tombstone_ttl` leaves a mark for some seconds, which `RedisCache` (see `redis_cache`) respects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from cdc import CommittedTransaction, ConfigurationError, Gap, Prepared, SchemaChange, SubscriptionError, Truncate
from cdc.caching.sent_row import rows_of
from cdc.relation import Relation
from cdc.sinks.key_template import KeyTemplate

if TYPE_CHECKING:
    import redis

__all__ = ["RedisInvalidate", "client_of", "tombstone"]

_AT_ONCE = 1000
_SECONDS = 5.0
"""For a server that does not answer."""


def client_of(server: str | redis.Redis) -> redis.Redis:
    """The client for a URL, or the client itself. Raises ConfigurationError without redis-py, and for a wrong URL."""
    try:
        import redis
    except ImportError:
        raise ConfigurationError(
            "redis-invalidate needs redis-py, which is not installed: pip install 'wells-cdc[redis]'"
        ) from None
    if isinstance(server, redis.Redis):
        return server
    if not isinstance(server, str):
        raise ConfigurationError(f"redis is a URL such as 'redis://127.0.0.1:6379/0', or a redis.Redis, not {server!r}")
    try:
        return redis.Redis.from_url(server, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)
    except ValueError:
        # The URL may hold a password.
        raise ConfigurationError("redis: the URL cannot be read; write redis://HOST:PORT/DATABASE") from None


def tombstone(key: str) -> str:
    """The key of the mark that a deleted key leaves."""
    return f"cdc:tombstone:{key}"


class RedisInvalidate:
    """A handler that deletes the keys of changed rows: those of the row before the change, and of the row after it.

    TRUNCATE, an altered table and a `Gap` delete every key of the templates, and so does the beginning.

    Args:
        server: a URL, or a redis.Redis of yours.
        templates: which keys belong to a row, such as `"well:{id}"`; at least one.
        publish: a channel on which each deletion is told: `{"keys": […]}`, or `{"all": [templates]}`.
        tombstone_ttl: seconds for which deleted keys leave a mark, for `RedisCache`; None leaves none.
        clears_at_start: whether keys from before are deleted when it begins. Leave it out only for a slot that
            remembers, and when this very sink was there before.
        sweeps: whether an update that does not say the old key may delete all keys of the template; else the
            subscription is refused.

    Raises ConfigurationError. Its call raises redis.RedisError when the server does not take a deletion.
    """

    clears = True

    def __init__(
        self,
        server: str | redis.Redis,
        *templates: str,
        publish: str | None = None,
        tombstone_ttl: float | None = None,
        clears_at_start: bool = True,
        sweeps: bool = False,
    ) -> None:
        if not templates:
            raise ConfigurationError("redis-invalidate needs a key template at least, such as 'well:{id}'")
        self.templates = tuple(KeyTemplate(text) for text in templates)
        if publish is not None and not (isinstance(publish, str) and publish):
            raise ConfigurationError(f"publish is the name of a channel, not {publish!r}")
        if tombstone_ttl is not None and not (isinstance(tombstone_ttl, int | float) and 0 < tombstone_ttl < math.inf):
            raise ConfigurationError(f"tombstone_ttl is a number of seconds above 0, not {tombstone_ttl!r}")
        self.clears_at_start = clears_at_start
        self._sweeps = sweeps
        self._publish = publish
        self._life = None if tombstone_ttl is None else max(1, round(tombstone_ttl * 1000))
        self._client = client_of(server)

    def __call__(self, event: Any) -> None:
        """Delete what an event, a list of events or a transaction concerns. Returns when the server has done it."""
        events = event.events if isinstance(event, CommittedTransaction) else event
        keys: dict[str, None] = {}
        swept: dict[KeyTemplate, None] = {}
        for each in events if isinstance(events, Iterable) else [events]:
            self._gather(each, keys, swept)
        if swept:
            self._sweep(list(swept))
        if keys:
            self._delete(list(keys))

    def clear(self) -> None:
        """Delete every key of the templates, now."""
        self._sweep(list(self.templates))

    def check(self, relation: Relation) -> None:
        """Raise SubscriptionError when the keys of a change of this table would not be known."""
        for template in self.templates:
            for column in template.columns:
                if column not in relation.whole.columns:
                    listed = ", ".join(relation.whole.columns)
                    raise SubscriptionError(f"{relation} has no published column {column!r}; it has {listed}")
            unsent = [column for column in template.columns if column not in relation.identity.columns]
            if unsent and not self._sweeps:
                raise SubscriptionError(
                    f"the key {template.text!r} needs {', '.join(unsent)}, which updates and deletes of {relation} do "
                    f'not send of the old row. Run `ALTER TABLE "{relation.schema}"."{relation.table}" REPLICA '
                    "IDENTITY FULL`, or say sweeps=True: then each of them deletes all keys of the template"
                )

    def _gather(self, event: Any, keys: dict[str, None], swept: dict[KeyTemplate, None]) -> None:
        """Note the keys that an event concerns, and the templates of which it may concern any key."""
        if isinstance(event, Prepared):
            return  # Its changes come when it commits.
        if isinstance(event, Gap | SchemaChange | Truncate):
            swept.update(dict.fromkeys(self.templates))
            return
        rows = rows_of(event)
        for template in self.templates:
            try:
                keys.update(dict.fromkeys([template.key(row) for row in rows]))
            except KeyError:
                swept[template] = None

    def _delete(self, keys: list[str]) -> None:
        """Mark and delete keys, in this order and at once."""
        for some in _batches(keys):
            with self._client.pipeline(transaction=True) as pipe:
                if self._life is not None:
                    for key in some:
                        pipe.set(tombstone(key), b"", px=self._life)
                pipe.unlink(*some)
                self._tell(pipe, {"keys": some})
                pipe.execute()

    def _sweep(self, templates: list[KeyTemplate]) -> None:
        """Delete all keys of templates. The marks come first: what is put back from then on is not kept."""
        if self._life is not None:
            with self._client.pipeline(transaction=True) as pipe:
                for template in templates:
                    pipe.set(tombstone(template.text), b"", px=self._life)
                pipe.execute()
        for template in templates:
            found = self._client.scan_iter(match=template.pattern, count=_AT_ONCE)
            for some in _batches(found):
                self._client.unlink(*some)
        with self._client.pipeline(transaction=False) as pipe:
            self._tell(pipe, {"all": [template.text for template in templates]})
            pipe.execute()

    def _tell(self, pipe: Any, message: dict[str, list[str]]) -> None:
        if self._publish is not None:
            pipe.publish(self._publish, json.dumps(message))

    def close(self) -> None:
        """Give back the connections. Idempotent."""
        self._client.close()

    def __repr__(self) -> str:
        return f"redis-invalidate of {', '.join(template.text for template in self.templates)}"


def _batches(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """The keys, some at a time."""
    rest = iter(keys)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
