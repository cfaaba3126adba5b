"""What does a fetch of the fenced cache cost, next to a bare TTLCache behind a lock and to a bare query?

`hit`: the answer is in memory. `ttlcache_hit` is what one writes oneself: a `cachetools.TTLCache`, a lock round each
access, a load on a miss; it is never told of a change. Both also with eight threads, and `hit_async` from a coroutine.

`miss`: a load of one row by its key, next to `query`, the same query on a connection of its own; `miss_tombstone`: the
key was changed a moment ago, so that the load has to show the change. The three take turns key by key; medians.

`invalidations_…`: changes of one row each, as the loop hands them to a cache that has an entry for each; in memory. The
bytes are those that stay with each entry, without its value.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import contest
import psycopg
from cachetools import TTLCache

import cdc
from cdc.loader import snapshot_of
from cdc.testing import Sandbox

ROWS = 200_000
TARGETS = {
    "hit_ratio": contest.Target(2, at_most=True),
    "hit_8_threads_ratio": contest.Target(2, at_most=True),
    "miss_ratio": contest.Target(1.2, at_most=True),
    "miss_tombstone_ratio": contest.Target(2.5, at_most=True),
}
TABLE = """
CREATE TABLE wells (id int PRIMARY KEY, name text, depth numeric);
CREATE PUBLICATION wells FOR TABLE wells;
"""
KEYS = 1000
"""Entries that hits go to."""
THREADS = 8
SHARE = 20
"""One load for so many hits."""
QUERY = "SELECT name, depth FROM wells WHERE id = %s"

Load = Callable[[Any, int], Any]
_MISSING = object()


def load(connection: psycopg.Connection[Any], key: int) -> Any:
    """What a miss costs anyhow."""
    return connection.execute(QUERY, (key,)).fetchone()


class Bare:
    """What one writes oneself."""

    def __init__(self, dsn: str, maxsize: int) -> None:
        self._entries: TTLCache[int, Any] = TTLCache(maxsize, 3600)
        self._mutex = threading.Lock()
        self._connection = psycopg.connect(dsn, autocommit=True)

    def fetch(self, key: int, load: Load) -> Any:
        """From memory or by a load."""
        with self._mutex:
            value = self._entries.get(key, _MISSING)
        if value is _MISSING:
            value = load(self._connection, key)
            with self._mutex:
                self._entries[key] = value
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def close(self) -> None:
        """Close its connection."""
        self._connection.close()


class Ground:
    """A running consumer with a cache, the changes that it was told of, and the cache to compare with."""

    def __init__(self, dsn: str, consumer: cdc.Consumer, rows: int) -> None:
        self.rows, self.loads = rows, max(20, rows // SHARE)
        size = max(KEYS, self.loads)
        self.cache = consumer.cache("wells", ttl=3600, maxsize=size, by="id")
        self.bare = Bare(dsn, size)
        self.events: list[Any] = []
        consumer.on("wells")(self.events.append)
        self.db = psycopg.connect(dsn, autocommit=True)
        consumer.start()
        while not self.cache.is_live:
            time.sleep(0.005)
        fill = "INSERT INTO wells SELECT n, 'A-' || n, n FROM generate_series(1, %s) n"
        self.db.execute(fill, (self.loads,))
        consumer.wait_for(cdc.current_lsn(self.db))
        self.settle()

    def settle(self) -> None:
        """No change is one that may not be visible."""
        self.cache.seen(snapshot_of(self.db))

    def close(self) -> None:
        """Close its connections."""
        self.bare.close()
        self.db.close()

    # What is measured; in microseconds of one fetch.

    def hit(self, cache: Any) -> float:
        """Processor time of one thread."""
        keys = range(1, min(KEYS, self.loads) + 1)
        fetch = cache.fetch
        for key in keys:
            fetch(key, load)
        turns = max(1, self.rows // len(keys))
        gc.collect()
        begun = time.process_time()
        for _ in range(turns):
            for key in keys:
                fetch(key, load)
        return (time.process_time() - begun) / (turns * len(keys)) * 1e6

    def hit_together(self, cache: Any) -> float:
        """Time of all threads, for one fetch of any of them."""
        keys = range(1, min(KEYS, self.loads) + 1)
        fetch = cache.fetch
        for key in keys:
            fetch(key, load)
        turns = max(1, self.rows // len(keys) // THREADS)
        gate = threading.Barrier(THREADS + 1)

        def work() -> None:
            gate.wait()
            for _ in range(turns):
                for key in keys:
                    fetch(key, load)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        gc.collect()
        gate.wait()
        begun = time.perf_counter()
        for thread in threads:
            thread.join()
        return (time.perf_counter() - begun) / (turns * len(keys) * THREADS) * 1e6

    def misses(self) -> dict[str, float]:
        """The three kinds of loads in turn, key by key; of each the median, as loads wait for the server."""
        self.cache.invalidate()
        fetch, receive, clock = self.cache.fetch, self.cache.receive, time.perf_counter
        taken: dict[str, list[float]] = {"query": [], "miss": [], "miss_tombstone": []}
        query, miss, tombstone = taken.values()
        gc.collect()
        for key, event in enumerate(self.events, 1):
            begun = clock()
            load(self.db, key)
            asked = clock()
            fetch(key, load)
            missed = clock()
            receive(event)
            received = clock()
            fetch(key, load)
            tombstone.append(clock() - received)
            query.append(asked - begun)
            miss.append(missed - asked)
        return {name: statistics.median(each) * 1e6 for name, each in taken.items()}

    def invalidation(self) -> float:
        """A change of a key with an entry."""
        for key in range(1, self.loads + 1):
            self.cache.fetch(key, load)
        gc.collect()
        begun = time.process_time()
        for event in self.events:
            self.cache.receive(event)
        taken = time.process_time() - begun
        assert len(self.cache) == 0
        self.settle()
        return taken / self.loads * 1e6

    def size(self, cache: Any) -> float:
        """Bytes of one entry; the value is one that is there anyhow."""
        cache.clear() if cache is self.bare else cache.invalidate()
        keys = range(10_000_000, 10_000_000 + min(KEYS, self.loads))
        cache.fetch(keys[0], lambda connection, key: None)
        gc.collect()
        tracemalloc.start()
        for key in keys:
            cache.fetch(key, lambda connection, key: None)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return kept / len(keys)


@contextmanager
def ground(dsn: str, rows: int) -> Iterator[Ground]:
    """A consumer that is live, until the end."""
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(TABLE)
    with cdc.Consumer(dsn, slot=None) as consumer:
        made = Ground(dsn, consumer, rows)
        try:
            yield made
        finally:
            made.close()


async def awaited(dsn: str, rows: int, rounds: int) -> float:
    """Microseconds of a hit that is awaited."""
    consumer = cdc.AsyncConsumer(dsn, slot=None)
    cache = consumer.cache("wells", ttl=3600, by="id")
    taken = []
    async with consumer:
        await consumer.start()
        while not cache.is_live:
            await asyncio.sleep(0.005)
        await cache.fetch(1, load)
        for _ in range(rounds):
            begun = time.perf_counter()
            for _ in range(rows):
                await cache.fetch(1, load)
            taken.append((time.perf_counter() - begun) / rows * 1e6)
    return statistics.median(taken)


def measure(dsn: str, rows: int, rounds: int) -> contest.Figures:
    """The figures."""
    figures: contest.Figures = {}
    with ground(dsn, rows) as it:
        turns: dict[str, Callable[[], float]] = {
            "ttlcache_hit": partial(it.hit, it.bare),
            "hit": partial(it.hit, it.cache),
            "ttlcache_hit_8_threads": partial(it.hit_together, it.bare),
            "hit_8_threads": partial(it.hit_together, it.cache),
            "invalidation": it.invalidation,
        }
        taken = contest.median(contest.take_turns(turns, rounds))
        misses = [it.misses() for _ in range(rounds)]
        taken |= {name: statistics.median(each[name] for each in misses) for name in misses[0]}
        sizes = {"ttlcache_entry": it.size(it.bare), "entry": it.size(it.cache)}
    invalidation = taken.pop("invalidation")
    next_to = {"hit": "ttlcache_hit", "hit_8_threads": "ttlcache_hit_8_threads", "miss": "query"}
    next_to["miss_tombstone"] = "query"
    for name, microseconds in taken.items():
        figures[f"{name}_microseconds"] = contest.short(microseconds)
        if name in next_to:
            figures[f"{name}_ratio"] = round(microseconds / taken[next_to[name]], 3)
    figures["hit_async_microseconds"] = contest.short(asyncio.run(awaited(dsn, max(20, rows // SHARE), rounds)))
    figures["invalidations_changes_per_second"] = contest.short(1e6 / invalidation)
    for name, size in sizes.items():
        figures[f"{name}_bytes"] = round(size)
    return figures


def main() -> None:
    """Measure; print one table, and one JSON object if asked."""
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="hits; a twentieth of them are loads")
    chosen = parser.parse_args()
    with Sandbox(settings={"max_replication_slots": 20}) as server:
        figures = contest.circumstances(server.version)
        figures |= measure(server.create_database(), chosen.rows, chosen.rounds)
    contest.finish(__file__, chosen, parser, figures, TARGETS)


if __name__ == "__main__":
    main()
