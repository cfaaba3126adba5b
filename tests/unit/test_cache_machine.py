"""The cache in memory, under any interleaving of loads, changes, snapshots, time and interruptions.

The cache is the real one; the server is a model, and its threads run one at a time, in an order that hypothesis draws.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cdc.caching.cache import Cache
from cdc.caching.fence import Snapshot
from cdc.errors import NotYetVisible
from cdc.events import Gap
from cdc.lsn import Lsn
from cdc.values import Types
from tests.stress.baton import Baton, Runner
from tests.stress.defects import CORE, spoiled
from tests.stress.model import EVERYTHING, RELATION, REWRITE, Model, Source, Value

TTL, PATIENCE, POLL = 10.0, 2.0, 3.0
KEYS = st.sampled_from([1, 1, 1, 2, 3])
MOSTLY = st.sampled_from([True, True, False])
STEPS = st.sampled_from([1, 3, 4, 5, 6, 30, 30, 30])
MANY = settings(max_examples=120, stateful_step_count=50, deadline=None)
HUNT = settings(max_examples=3000, stateful_step_count=50, deadline=None, phases=[Phase.generate], database=None)


class Fetch:
    """A fetch under way, and what its answer has to show."""

    def __init__(self, machine: CacheMachine, key: int, after: int | None = None) -> None:
        self.key, self.begun, self.turns = key, machine.baton.clock(), machine.turns
        self.floor = machine.received_of(key)
        if after is not None:
            self.floor |= {each.xid for each in machine.model.committed[: after - 999] if each.concerns(key)}
        if not machine.live:
            self.floor |= machine.old_of(key)
        self.done = math.inf
        self.loads = 0
        lsn = None if after is None else Lsn(after)
        self.runner: Runner = machine.baton.start(lambda: machine.cache.fetch(key, self.load, lsn))

    def load(self, connection: Any, key: int) -> Value:
        self.loads += 1
        value: Value = connection.read(key, self)
        return value


class Elsewhere:
    """Somebody who reads by a connection of his own."""

    done = math.inf


class CacheMachine(RuleBasedStateMachine):
    """Rules are what may happen; whoever fetches is judged when his answer is there."""

    by_lsn: ClassVar[bool] = False
    by: ClassVar[tuple[str, ...] | None] = ("shelf",)

    def __init__(self) -> None:
        super().__init__()
        self.baton = Baton()
        self.model = Model(self.baton.clock)
        self.baton.install()
        source = Source(self.model, self.baton.turn, self.baton.clock, self.by_lsn)
        self.cache = Cache("books", source, TTL, 2, self.by, PATIENCE, self.baton.clock, POLL)
        equality = Types().equality(23)
        assert equality is not None
        self.cache.bind(RELATION, (equality,))
        self.live = False
        self.turns = 0
        self.fetches: list[Fetch] = []
        self.elsewhere: list[tuple[int, Value, Snapshot]] = []
        self.compared: dict[int, frozenset[int]] | None = None
        self.comparing: tuple[float, dict[int, frozenset[int]]] | None = None

    def received_of(self, key: int) -> frozenset[int]:
        """What was received of a key: any key, when the cache is one of the whole table."""
        received = self.model.committed[: self.model.sent]
        return frozenset(each.xid for each in received if each.concerns(key))

    def narrowed(self, key: int) -> int:
        """The key, or another one in its place."""
        return key

    def old_of(self, key: int) -> frozenset[int]:
        """What has been visible for longer than entries are served while the stream is not live."""
        oldest = self.baton.now - POLL
        return frozenset(each.xid for each in self.model.committed if each.visible_at < oldest and each.concerns(key))

    @initialize()
    def go_live(self) -> None:
        self.cache.begin(())
        self.live = True
        self.cache.set_live(True)

    # The server.

    @rule(keys=st.lists(KEYS, min_size=1, max_size=3) | st.sampled_from([[EVERYTHING], [REWRITE]]), commits=MOSTLY)
    def write(self, keys: list[int], commits: bool) -> None:
        self.model.begin(tuple(self.narrowed(key) for key in keys))
        if commits:
            self.model.commit(-1)

    @precondition(lambda self: self.model.running)
    @rule(which=st.integers(0, 9))
    def commit(self, which: int) -> None:
        self.model.commit(which)

    @precondition(lambda self: self.model.running)
    @rule(which=st.integers(0, 9))
    def commit_as_usual(self, which: int) -> None:
        self.model.show(self.model.commit(which))

    @precondition(lambda self: self.model.hidden)
    @rule(which=st.integers(0, 9))
    def show(self, which: int) -> None:
        hidden = self.model.hidden
        self.model.show(hidden[which % len(hidden)])

    # The loop.

    @precondition(lambda self: self.model.unsent)
    @rule(most=st.integers(1, 3))
    def receive(self, most: int) -> None:
        for written in self.model.unsent[:most]:
            if REWRITE in written.keys:
                self.cache.clear(written.xid)
            else:
                for event in written.events():
                    self.cache.receive(event)
            self.model.sent += 1

    @rule()
    def look(self) -> None:
        self.cache.seen(self.model.snapshot())

    @rule()
    def interrupt(self) -> None:
        self.live = not self.live
        self.turns += 1
        self.compared = self.comparing = None
        self.cache.set_live(self.live)

    @precondition(lambda self: not self.live)
    @rule()
    def lose(self) -> None:
        """The slot is lost: what was not sent never will be. Commits that are not visible are asked for."""
        self.cache.begin([each.xid for each in self.model.hidden])
        self.cache.receive(Gap("lost"))
        self.model.sent = len(self.model.committed)

    @precondition(lambda self: not self.live and self.comparing is None)
    @rule()
    def compare(self) -> None:
        """The table is read, to be compared with what was read before."""
        self.comparing = self.baton.clock(), {key: self.model.shown(key) for key in (1, 2, 3)}

    @precondition(lambda self: self.comparing is not None)
    @rule()
    def compared_with(self) -> None:
        assert self.comparing is not None
        before, (began, found) = self.compared, self.comparing
        differing = None if before is None else [(b"%d" % key,) for key in found if found[key] != before[key]]
        same = [(b"%d" % key,) for key in found if before is not None and found[key] == before[key]]
        self.cache.inflows[0].polled(differing, same, began)
        self.compared, self.comparing = found, None

    @rule(seconds=st.sampled_from([0.1, 1.0, POLL + 0.5, TTL + 1]))
    def wait(self, seconds: float) -> None:
        self.baton.now += seconds

    # Readers.

    @rule(key=KEYS, steps=STEPS)
    def fetch(self, key: int, steps: int) -> None:
        self.fetches.append(Fetch(self, self.narrowed(key)))
        self.go_on(-1, steps)

    @precondition(lambda self: self.model.committed)
    @rule(key=KEYS, steps=STEPS, back=st.integers(0, 2))
    def fetch_after(self, key: int, steps: int, back: int) -> None:
        """Whoever has written reads it again, whether it was received or not."""
        after = max(1000, self.model.written - back)
        self.fetches.append(Fetch(self, self.narrowed(key), after))
        self.go_on(-1, steps)

    @rule(key=KEYS)
    def read_elsewhere(self, key: int) -> None:
        key = self.narrowed(key)
        value = Value(self.model.shown(key), self.baton.now, Elsewhere())
        self.elsewhere = [*self.elsewhere[-3:], (key, value, self.model.snapshot())]

    @precondition(lambda self: self.elsewhere)
    @rule(which=st.integers(0, 3))
    def put(self, which: int) -> None:
        key, value, snapshot = self.elsewhere[which % len(self.elsewhere)]
        if self.cache.put(key, value, snapshot):
            value.reader.done = self.baton.now

    @precondition(lambda self: self.fetches)
    @rule(which=st.integers(0, 9), steps=STEPS)
    def go_on(self, which: int, steps: int) -> None:
        fetch = self.fetches[which % len(self.fetches) if which >= 0 else which]
        for _ in range(steps):
            if fetch.runner.is_done:
                break
            fetch.runner.step()
        if fetch.runner.is_done:
            fetch.done = self.baton.now
            self.fetches.remove(fetch)
            self.judge(fetch)

    @precondition(lambda self: self.live and len(self.model.committed) > 5)
    @rule(key=KEYS)
    def calm_down(self, key: int) -> None:
        """Everything is received and visible, and whoever fetches has his answer: then a value is kept."""
        while self.model.running:
            self.model.commit(0)
        for written in self.model.hidden:
            self.model.show(written)
        while self.model.unsent:
            self.receive(1)
        for _ in range(1000):
            if not self.fetches:
                break
            self.go_on(0, 1)
            self.fetches = self.fetches[1:] + self.fetches[:1]
        assert not self.fetches, "a fetch never ends"
        self.look()
        assert not self.cache.has_tombstones, "a tombstone stays for ever"
        self.fetch(key, 1000)
        kept = Fetch(self, self.narrowed(key))
        self.fetches.append(kept)
        self.go_on(-1, 1000)
        assert kept.runner.is_done and kept.loads == 0, "a value is not kept"

    def judge(self, fetch: Fetch) -> None:
        error, value = fetch.runner.error, fetch.runner.value
        if isinstance(error, NotYetVisible):
            assert self.baton.now >= fetch.begun + PATIENCE, "it gave up early"
            return
        if error is not None:
            raise error
        if fetch.turns != self.turns:
            fetch.floor &= self.received_of(fetch.key)  # It has become live, or was: then age does not count.
        assert fetch.floor <= value.shows, f"stale: {fetch.floor - value.shows} were received and are not shown"
        assert fetch.begun < value.reader.done + TTL, "an entry was served when its time was over"

    @invariant()
    def never_too_many(self) -> None:
        assert len(self.cache) <= 2

    def teardown(self) -> None:
        self.baton.close()


class WholeTableMachine(CacheMachine):
    """A cache that any change clears: a key's value has to show changes of its own, and more goes."""

    by = None


class Hunt(CacheMachine):
    """Fewer things happen, and to one key: what is wrong with the fence shows sooner. Rules without a mark are none."""

    def narrowed(self, key: int) -> int:
        return 1

    def interrupt(self) -> None: ...

    def lose(self) -> None: ...

    def wait(self, seconds: float) -> None: ...

    def calm_down(self, key: int) -> None: ...

    def fetch_after(self, key: int, steps: int, back: int) -> None: ...

    def read_elsewhere(self, key: int) -> None: ...

    def put(self, which: int) -> None: ...


class HuntPut(Hunt):
    """The same, and what others have read is put into it."""

    read_elsewhere, put = CacheMachine.read_elsewhere, CacheMachine.put


class HuntAge(CacheMachine):
    """The same while the stream is not live."""

    narrowed = Hunt.narrowed
    lose, calm_down = Hunt.lose, Hunt.calm_down

    @initialize()
    def go_live(self) -> None:
        self.cache.begin(())

    def interrupt(self) -> None: ...

    def compare(self) -> None: ...

    def compared_with(self) -> None: ...

    def receive(self, most: int) -> None: ...


HUNTS = {"any-put": HuntPut, "put-by-pending": HuntPut, "any-age": HuntAge}
TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = MANY
TestWholeTableMachine = WholeTableMachine.TestCase
TestWholeTableMachine.settings = MANY


@pytest.mark.parametrize("defect", CORE)
def test_the_machine_finds_a_defect_of_the_fence(defect: str) -> None:
    with spoiled(defect), pytest.raises(AssertionError, match="stale"):
        run_state_machine_as_test(HUNTS.get(defect, Hunt), settings=HUNT)


def test_the_machine_finds_a_comparison_of_lsns() -> None:
    class ByLsn(Hunt):
        by_lsn = True

    with pytest.raises(AssertionError, match="stale"):
        run_state_machine_as_test(ByLsn, settings=HUNT)
