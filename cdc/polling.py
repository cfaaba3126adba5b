"""Polling: keeps stores and caches near their tables while there is no stream.

Part of the loop; it yields the same steps. A thread of its own looks at the tables every few seconds, over a connection
of its own; what it finds is applied between two steps of the loop, where handlers are called. So a look is simply not
applied when the stream has become live meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg

from cdc.admission import Admission
from cdc.caching.inflow import Inflow
from cdc.connection import connect
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError, ConnectionFailed
from cdc.failures import first_line, translated
from cdc.log import log
from cdc.poll_reader import PollReader, TooManyRows
from cdc.polled import Finding, Polled, PolledCache, PolledStore
from cdc.storing.feed import Feed
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.values import Types
from cdc.waiting import Call, Steps, Wait
from cdc.witness import Witness

__all__ = ["Polling"]

Found = tuple[Polled, "Finding | TooManyRows | str"]
"""What a look found, or why there was none."""

_TOO_LARGE_FOR = 60.0
"""Seconds until a table that had too many rows is looked at again."""


_LOOK_EVERY = 0.5
"""Seconds between two looks at an attempt to connect; it also wakes the loop."""


class _Eyes:
    """A thread that looks, and its connection; for one spell without a stream."""

    def __init__(self, target: Target, is_stopping: Callable[[], bool]) -> None:
        self.is_closed = False
        witness = Witness(target.dsn, lambda: self.is_closed or is_stopping())
        self.reader = PollReader(target.publications, witness.of_ordinary)
        self.thread = ThreadPoolExecutor(1, "cdc-polling")

    def close(self) -> None:
        """End what is under way; thread and connection go as soon as it has ended. Never waits."""
        self.is_closed = True
        self.reader.cancel()
        self.thread.submit(self.reader.close)
        self.thread.shutdown(wait=False)


class Polling:
    """Polls, from `begin` to `end`.

    Args:
        target: what the consumer connects to.
        dispatcher: knows the stores.
        caches: the caches, by the subscription that clears them.
        wake: ends a wait of the loop, from any thread.
        is_stopping: whether the loop is to end.

    Attributes:
        since: since when it polls, in UTC; None while it does not.
        hand: hands something over to a store; None when nothing is left to do.
    """

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        caches: Mapping[Subscription, Inflow],
        wake: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.since: datetime | None = None
        self.hand: Callable[[Subscription, Any], Steps | None] = _to_nobody
        self._target = target
        self._dispatcher = dispatcher
        self._caches = caches
        self._wake = wake
        self._is_stopping = is_stopping
        self._dsn = target.dsn
        self._eyes: _Eyes | None = None
        self._future: Future[list[Found]] | None = None
        self._polled: dict[Subscription, Polled] = {}
        self._rows: dict[Subscription, int] = {}
        self._problems: dict[Subscription | None, str] = {}
        """Why a table is not polled; under None, why nothing is."""
        self._too_large: dict[Subscription, float] = {}
        self._last: datetime | None = None
        self._due_at = 0.0
        self._streams = False
        self._parted_at = 0.0
        """When the last stream was lost, by time.monotonic()."""

    @property
    def is_active(self) -> bool:
        """Whether it polls."""
        return self.since is not None

    def begin(self, dsn: str, reason: str) -> None:
        """Poll from now on; `dsn` is the very server of the stream."""
        if self.since is not None:
            return
        self.since, self._dsn, self._due_at = datetime.now(UTC), dsn, 0.0
        if self._wanted():
            log.warning("polling.begun", every=self._target.fallback.interval, reason=reason)

    def stream(self, begins: bool) -> None:
        """A stream begins, or the stream is lost."""
        if self._streams and not begins:
            self._parted_at = time.monotonic()
        self._streams = begins

    def end(self) -> None:
        """The stream is live: what is being read is of no use any more."""
        if self.since is None:
            return
        if self._polled:
            log.info("polling.ended", tables=len(self._rows))
        self.close()
        self.since = self._last = None
        for kept in (self._polled, self._rows, self._problems, self._too_large):
            kept.clear()

    def close(self) -> None:
        """Give back the thread and the connection. Never waits."""
        eyes, self._eyes, self._future = self._eyes, None, None
        if eyes is not None:
            eyes.close()

    def replaces(self, error: CdcError, dsn: str, check: Callable[[Admission], None] | None = None) -> bool:
        """Whether it stands in from now on, although waiting cannot mend `error`: as `fallback="poll"` asks for.

        That takes an ordinary connection. `check` decides about what was subscribed, where nobody has done that yet;
        what it raises is the user's to mend.
        """
        fallback = self._target.fallback
        if not fallback.polls:
            return False
        try:
            connection = self._connected(dsn)
        except CdcError as refusal:
            return self.since is not None and isinstance(refusal, ConnectionFailed)
        with closing(connection):
            try:
                row = connection.execute("SELECT pg_catalog.current_setting('wal_level')").fetchone()
                if row is None or not fallback.covers(error, row[0]):
                    return False
                if check is not None:
                    check(_admission(connection, self._target))
            except (ConnectionFailed, psycopg.Error):
                return self.since is not None
        self.begin(dsn, str(error))
        return True

    def check(self, dsn: str, check: Callable[[Admission], None]) -> None:
        """Decide about a subscription that is made while there is no stream.

        Raises what `check` raises, and ConnectionFailed when nobody can be asked.
        """
        try:
            with closing(self._connected(dsn)) as connection:
                check(_admission(connection, self._target))
        except psycopg.Error as error:
            raise translated(error) from None

    def _connected(self, dsn: str) -> psycopg.Connection[Any]:
        connection = connect(dsn, Witness(dsn, self._is_stopping).of_ordinary)
        connection.execute("SET lock_timeout = '5s'")
        return connection

    def beside(self, give_up: Callable[[], None], function: Callable[..., None], *arguments: Any) -> Steps:
        """Do what may take its time, and go on polling meanwhile; `give_up` lets it end soon."""
        if self.since is None:
            yield Call(function, arguments)
            return
        thread = ThreadPoolExecutor(1, "cdc-connecting")
        future = thread.submit(function, *arguments)
        future.add_done_callback(lambda _: self._wake())
        thread.shutdown(wait=False)
        try:
            while not future.done():
                yield from self.steps()
                yield Wait((), self.patience(_LOOK_EVERY))
        except BaseException:
            give_up()
            raise
        finally:
            yield Call(wait, ((future,),))
        future.result()

    def steps(self) -> Steps:
        """Apply what was found, and look again when it is time."""
        if self.since is None:
            return
        future = self._future
        if future is not None and future.done():
            self._future = None
            yield from self._apply(future)
        now = time.monotonic()
        if self._future is None and now >= self._due_at and (wanted := self._wanted()):
            self._due_at = now + self._target.fallback.interval
            self._ask(list(wanted.values()), now)

    def patience(self, usual: float) -> float:
        """Seconds to wait, where the loop would wait for `usual`."""
        if self.since is None or self._future is not None:
            return usual
        return max(0.0, min(usual, self._due_at - time.monotonic()))

    def reasons(self) -> list[str]:
        """What it does and what it cannot do, in words, for health."""
        if self.since is None or not self._wanted():
            return []
        interval, rows = self._target.fallback.interval, sum(list(self._rows.values()))
        told = f"polling every {interval:g} s since {_clock(self.since)}"
        last = "nothing yet" if self._last is None else f"{rows} rows, last at {_clock(self._last)}"
        problems = dict(self._problems)
        now = problems.pop(None, None)
        tables = [f"{of.label} is not polled: {reason}" for of, reason in problems.items() if of is not None]
        return [f"{told}: {last}" + ("" if now is None else f"; not at the moment: {now}"), *tables]

    # A poll.

    def _wanted(self) -> dict[Subscription, Polled]:
        """What is to be polled."""
        wanted: dict[Subscription, Polled] = {}
        for subscription, cache in list(self._caches.items()):
            wanted[subscription] = self._polled.get(subscription) or PolledCache(subscription, cache)
        for each in self._dispatcher.readers:
            if isinstance(each, Feed) and not each.closed:
                wanted[each] = self._polled.get(each) or PolledStore(each, self.hand)
        self._polled = wanted
        return wanted

    def _ask(self, wanted: list[Polled], now: float) -> None:
        due = [each for each in wanted if self._too_large.get(each.subscription, 0.0) <= now]
        if self._streams:
            due = [each for each in due if not each.is_kept]
        if self._eyes is None:
            self._eyes = _Eyes(self._target, self._is_stopping)
        self._future = self._eyes.thread.submit(_look, self._eyes, self._target, self._dsn, due)
        self._future.add_done_callback(lambda _: self._wake())

    def _apply(self, future: Future[list[Found]]) -> Steps:
        """Take over what was found."""
        try:
            found = future.result()
        except (CdcError, psycopg.Error) as error:
            self._note(None, first_line(error))
            return
        self._note(None, None)
        self._last = datetime.now(UTC)
        for polled, outcome in found:
            of = polled.subscription
            if of.closed:
                continue
            if isinstance(outcome, Finding):
                if outcome.is_first and (self._streams or outcome.began < self._parted_at):
                    continue  # The stream has brought something else since.
                self._rows[of] = outcome.rows
                self._note(of, None)
                yield from polled.apply(outcome)
            else:
                if isinstance(outcome, TooManyRows):
                    self._too_large[of] = time.monotonic() + _TOO_LARGE_FOR
                self._note(of, str(outcome))

    def _note(self, subscription: Subscription | None, problem: str | None) -> None:
        """Why a table, or any of them, is not polled; None when it is."""
        before = self._problems.pop(subscription, None)
        if problem is not None:
            self._problems[subscription] = problem
            if problem != before:
                table = None if subscription is None else subscription.label
                log.warning("polling.failed", table=table, reason=problem)


def _look(eyes: _Eyes, target: Target, dsn: str, polled: list[Polled]) -> list[Found]:
    """Look at every table, on the thread of the polls."""
    connection = eyes.reader.connect(dsn)
    admission = _admission(connection, target)
    found: list[Found] = []
    for each in polled:
        if eyes.is_closed:
            break
        try:
            found.append((each, each.look(eyes.reader, admission, target.fallback.rows)))
        except TooManyRows as error:
            found.append((each, error))
        except (CdcError, psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
            found.append((each, first_line(error)))
    return found


def _admission(connection: psycopg.Connection[Any], target: Target) -> Admission:
    """What is published, described and allowed at this moment."""
    admission = Admission(connection, target.publications, {}, Types(target.decoders), target.options.binary)
    admission.judge.session_functions = target.session_functions
    return admission


def _to_nobody(subscription: Subscription, event: Any) -> None:
    """What is handed over before there is somebody who does it."""


def _clock(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
