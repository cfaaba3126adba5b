"""What both consumers share: settings, subscriptions, caches, health.

Does no waiting of its own; `consumer` adds that, for threads and for asyncio.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from inspect import iscoroutinefunction
from pathlib import Path
from types import FunctionType

import psycopg

from cdc.admission import Admission
from cdc.caching.inflow import Inflow
from cdc.dispatcher import Dispatcher
from cdc.errors import CdcError, ConfigurationError, ConnectionFailed, SubscriptionError
from cdc.fallback import Fallback
from cdc.health import Health, Status
from cdc.in_vain import not_complete, not_reached
from cdc.listener import Listener
from cdc.loader import Loader
from cdc.loop import Loop
from cdc.lsn import Lsn, Position
from cdc.namesakes import Namesakes
from cdc.options import Options as StreamOptions
from cdc.parked import Parked
from cdc.reconnect import Backoff
from cdc.recorder import Recorder
from cdc.refusals import check_parts
from cdc.session_functions import SessionFunctions
from cdc.settings import check_failover, check_kinds, check_settings
from cdc.slot import SAVED, SlotWait, own_position
from cdc.snapshot_progress import SnapshotProgress
from cdc.state import open_state
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.vitals import health_of
from cdc.whereabouts import Whereabouts

__all__ = ["Consuming"]


class Consuming:
    """The part of a consumer that does not wait. Use `Consumer` or `AsyncConsumer`."""

    def __init_subclass__(cls) -> None:
        """Let Python's own complaint about an argument name the class that was called."""
        super().__init_subclass__()
        ours = Consuming.__init__
        if "__init__" not in vars(cls) and getattr(cls.__init__, "__code__", None) is ours.__code__:
            copy = FunctionType(ours.__code__, ours.__globals__, "__init__", ours.__defaults__, ours.__closure__)
            copy.__kwdefaults__, copy.__annotations__ = ours.__kwdefaults__, ours.__annotations__
            copy.__doc__, copy.__qualname__, copy.__module__ = ours.__doc__, cls.__name__, cls.__module__
            cls.__init__ = copy  # type: ignore[method-assign]

    def __init__(
        self,
        dsn: str,
        *,
        publication: str | Sequence[str] = "wells",
        slot: str | None,
        state: str | Path | None = "database",
        on_gap: str | None = None,
        require_subject: bool = False,
        backoff: Backoff | None = None,
        rights_interval: float = 5.0,
        streaming: str = "on",
        two_phase: bool = False,
        binary: bool = False,
        spool_memory: int = 16 << 20,
        spool_folder: str | Path | None = None,
        park_file: str | Path | None = None,
        start_after: Position | str | None = SAVED,
        wait_for_slot: float = 5.0,
        failover: bool = False,
        session_functions: Sequence[str] = (),
        rights_dsn: str | None = None,
        polling_interval: float = 5.0,
        polling_rows: int = 100_000,
        fallback: str | None = None,
    ) -> None:
        """Keep the settings; nothing is connected to yet.

        Args:
            dsn: the server, as libpq takes it: a URL or key=value pairs. Not a pooler.
            publication: name of the publication, or several.
            slot: name of the replication slot, which remembers across runs; None makes a temporary one that
                begins now and goes with the connection.
            state: where the position is kept: `"database"` (the table cdc.slots), a path, or None.
            on_gap: `"stop"` raises GapError when changes may be missing, `"deliver"` tells handlers by a `Gap`
                and goes on, `"resync"` also reads their tables anew. Default: stop for a named slot, deliver for a
                temporary one.
            require_subject: refuse subscriptions without a subject.
            backoff: waits between attempts to connect; default 2 s doubling to 32 s.
            rights_interval: seconds after which changed roles, grants and policies are applied at the latest.
            streaming: `"on"`: the server sends a large transaction while it runs, and it is kept here until it commits;
                `"off"`: at its commit; `"parallel"`: as on, with the details of aborts (PostgreSQL 16).
            two_phase: tell of prepared transactions by `Prepared` (PostgreSQL 15).
            binary: read cells in binary form; then there are no filters, no subjects and no caches by key.
            spool_memory: bytes of uncommitted transactions that are kept in memory; what is more goes to a file.
            spool_folder: where that file is; default: the system's folder for temporary files.
            park_file: where parked events go while the table cdc.parked cannot be written; default:
                `wells-cdc/SLOT.parked.jsonl` in the folder for programs' state, `~/.local/state`.
            start_after: the position that you keep with your own data, as a `Position` or its text; None when you have
                nothing yet. Changes up to it are not delivered. Default `"saved"`: what cdc has saved itself.
            wait_for_slot: seconds to wait while another consumer holds the slot.
            failover: let standbys keep a copy of the slot (PostgreSQL 17).
            session_functions: functions of policies, such as `"app.tenant()"`, that are run once for each subject.
            rights_dsn: the unprivileged login that runs them: NOINHERIT, and a member of the subjects' roles.
            polling_interval: seconds for which caches serve what they have read while the stream is not live, and from
                one poll of their tables to the next.
            polling_rows: rows that a table may have at most to be polled.
            fallback: `"poll"`: poll for stores and caches where the consumer would end for want of a slot or a right,
                and go on trying to stream.

        Raises ConfigurationError for a setting that cannot be.
        """
        names = tuple(publication) if isinstance(publication, list | tuple) else (publication,)
        check_settings(names, slot, on_gap, rights_interval)
        check_kinds(require_subject, backoff, spool_folder, park_file)
        check_failover(failover, slot)
        beneath = Fallback.of(fallback, polling_interval, polling_rows, on_gap)
        gap = beneath.on_gap(on_gap, slot is None)
        folder = None if spool_folder is None else Path(spool_folder)
        options = StreamOptions(streaming, two_phase, binary, spool_memory, folder, failover)
        self._decoders: dict[str, Callable[[str], object]] = {}
        kept = open_state(state if slot is not None else None)
        own = own_position(start_after, slot, state)
        wait = SlotWait(wait_for_slot)
        wait.is_over = lambda: self._loop.link.is_stopping
        asked = SessionFunctions(session_functions, rights_dsn)
        beside = None if park_file is None else Path(park_file)
        self._target = Target(dsn, names, slot, kept, gap, options, self._decoders, own, wait, beside, asked, beneath)
        self._dispatcher = Dispatcher()
        self._loop = Loop(self._target, self._dispatcher, backoff or Backoff(), rights_interval, lambda: self._wake())
        self._loader = Loader(Whereabouts(self._loop, self._target, lambda: self._wake()))
        self._require_subject = require_subject
        self._polling_interval = polling_interval
        self._unchecked: dict[Subscription, Inflow | None] = {}
        self._namesakes = Namesakes()
        self._starting = threading.Lock()
        self._pid = os.getpid()
        self._wake: Callable[[], None] = _nobody_waits

    @property
    def subscriptions(self) -> list[Subscription]:
        """Every open subscription, those of caches included; one to several tables counts as one."""
        own = self._loop.snapshots.is_own
        begun = [subscription for subscription in self._dispatcher.readers if not own(subscription)]
        return [*begun, *self._unchecked]

    def health(self) -> Health:
        """Whether the consumer is well, and if not, why. Never waits."""
        return health_of(self._loop, self._target, self._dispatcher.readers, self._dispatcher.problems.notes)

    def gap_mended(self) -> None:
        """Say that your data is up to date again after a `Gap`: `health()` does not speak of it any more."""
        self._loop.progress.gap = None

    def _parked(self) -> list[Parked]:
        self._check_process()
        return self._loop.lot.records(self._load_dsn())

    def _retry_parked(self, id: str, force: bool) -> None:
        self._check_process()
        self._loop.lot.request(self._load_dsn(), id, force)
        self._wake()

    def _drop_parked(self, id: str) -> None:
        self._check_process()
        self._loop.lot.drop(self._load_dsn(), id)

    def register_type(self, name: str, decode: Callable[[str], object]) -> None:
        """Let `decode` turn the text of every value of a type into a Python object.

        Args:
            name: the type's name, such as `"hstore"`, `"interval"` or `"gis.geometry"`.
            decode: called with the server's text; what it raises becomes the reason of an `Undecoded`.

        Raises ConfigurationError once the consumer is open.
        """
        if not (isinstance(name, str) and name) or not callable(decode):
            raise ConfigurationError(f"register_type takes a type's name and a function, not {name!r} and {decode!r}")
        if iscoroutinefunction(decode):
            raise ConfigurationError(f"register_type({name!r}): a coroutine function cannot decode")
        if self._loop.link.session is not None:
            raise ConfigurationError(f"register_type({name!r}): register types before the consumer is opened")
        self._decoders[name] = decode

    def record(self, path: str | Path) -> Recorder:
        """Keep the frames that arrive, with their times, in a file, until the result is closed or the consumer is.

        `cdc replay` and `cdc.testing.replay` make the same events of them without a server. Whoever can read the file
        can read the data. It may be called before the consumer is opened; while it runs, recording begins at the next
        moment at which no transaction is open.

        Args:
            path: the file; what another `record` left there is continued, and is read through first.

        Raises ConfigurationError when it cannot be written, is something else, or this consumer is recorded already.
        """
        self._check_process()
        return self._loop.link.record(path)

    def _add(self, subscription: Subscription, cache: Inflow | None = None) -> None:
        """Check a subscription now, or at the opening when that is still to come."""
        self._check_process()
        check_parts(subscription, self._namesakes.of(subscription))
        link = self._loop.link
        session = link.session
        if session is None and link.refused is None:
            self._unchecked[subscription] = cache
            self._namesakes.add(subscription)
            return
        if link.status is Status.STOPPED or (session is not None and link.status is Status.CONNECTING):
            doing = "reconnecting" if link.status is Status.CONNECTING else "stopped"
            raise ConnectionFailed(f"the consumer is {doing}: a subscription to {subscription.label} needs the server")
        if session is not None and isinstance(subscription, Listener) and session.messages is False:
            raise SubscriptionError(
                f"{subscription}: the server was not asked for messages when streaming began: "
                "call on_message before start() or run(), or have another handler of messages from the start"
            )
        try:
            if session is None:
                link.polling.check(self._target.dsn, lambda admission: admission.check(subscription, cache))
            else:
                session.admission.check(subscription, cache)
        except psycopg.OperationalError as error:
            raise ConnectionFailed(f"the connection was lost while {subscription} was checked: {error}") from None
        self._admit(subscription, cache)
        if cache is not None or subscription._in_parts or type(subscription) is not Subscription:
            self._wake()  # Any other one need not begin before the next transaction does.

    def _admit(self, subscription: Subscription, cache: Inflow | None) -> None:
        self._namesakes.add(subscription)
        if cache is not None:
            self._loop.caches[subscription] = cache
        if subscription.parks:
            self._loop.lot.attend(subscription)
        self._dispatcher.add(subscription)
        self._loop.boundary.expiry.watch(subscription)

    def _subscription_closed(self, subscription: Subscription) -> None:
        self._unchecked.pop(subscription, None)
        self._namesakes.discard(subscription)
        self._dispatcher.remove(subscription)
        self._loop.boundary.expiry.forget(subscription)
        if subscription.lane is not None and subscription.closed_reason is None:
            subscription.lane.close()
        cache = self._loop.caches.pop(subscription, None)
        if cache is not None:
            cache.close()
        if self._loop.link.session is not None:
            self._loop.link.session.admission.forget(subscription)

    def _open(self) -> None:
        """Connect, and check what was subscribed before. Nothing happens when it is open already."""
        self._check_process()
        if self._loop.link.status is Status.STOPPED:
            raise ConfigurationError("this consumer was stopped: make a new one")
        if self._loop.link.session is not None or self._loop.link.refused is not None:
            return
        checked: set[Subscription] = set()

        def check(admission: Admission) -> None:
            """Check what was subscribed before; a mistake must not leave a slot behind."""
            for subscription, cache in list(self._unchecked.items()):
                admission.check(subscription, cache)
                checked.add(subscription)

        try:
            self._loop.link.begin(check)
        except CdcError as error:
            if self._loop.link.is_stopping and isinstance(error, ConnectionFailed):
                return  # Whoever told it to stop does not want it to connect.
            self._loop.link.failed(error)
            raise
        session = self._loop.link.session
        unchecked, self._unchecked = self._unchecked, {}
        for subscription, cache in unchecked.items():
            if session is not None and subscription not in checked:
                # Another thread subscribed while the slot was made.
                session.admission.check(subscription, cache)
            self._admit(subscription, cache)
        try:
            if session is not None:
                self._loop.snapshots.look(session)
        except CdcError:
            self._close()
            raise

    def _close(self) -> None:
        """Give back every connection; for a consumer whose loop is over or never ran. It cannot be used again."""
        self._loop.link.set_status(Status.STOPPED)
        if (recorder := self._loop.link.recorder) is not None:
            recorder.end(is_stopped=True)
        if self._loop.link.session is not None:
            self._loop.link.session.close()
        self._loader.close()
        self._loop.snapshots.files.close()
        self._loop.lanes.over(None)

    @property
    def _is_ending(self) -> bool:
        """Whether it was stopped, or has ended by itself."""
        return self._loop.link.is_stopping or self._loop.lanes.is_over

    def _future(self, lsn: Lsn | str) -> Future[None]:
        self._check_process()
        future = self._loop.progress.wait_for(lsn if isinstance(lsn, Lsn) else Lsn.parse(lsn))
        self._wake()
        return future

    def _over(self, failure: BaseException | None) -> None:
        """The loop is over: whoever waits for it hears why."""
        if failure is not None and not isinstance(failure, Exception):
            # A cancellation or an interrupt concerns the thread or task that got it, not those who wait.
            failure = CdcError(f"the consumer was ended by {type(failure).__name__}")
        self._loop.progress.fail(failure or CdcError("the consumer was stopped"))
        self._loop.snapshots.fail(failure or CdcError("the consumer was stopped"))
        self._loop.lanes.over(failure)

    def _not_reached(self, lsn: Lsn | str, timeout: float) -> TimeoutError:
        return not_reached(lsn, timeout, self.health(), self._loop.lanes)

    def _snapshot_of(self, subscription: Subscription) -> SnapshotProgress:
        self._check_process()
        if not isinstance(subscription, Subscription):
            raise ConfigurationError(
                f"wait_for_snapshot takes a Subscription, as subscribe() returns it, not {subscription!r}; those of "
                "decorated functions are in consumer.subscriptions"
            )
        if subscription.snapshot is None:
            raise ConfigurationError(f"{subscription} reads no snapshot: subscribe with snapshot=True")
        return subscription.snapshot

    def _not_complete(self, subscription: Subscription, timeout: float) -> TimeoutError:
        return not_complete(subscription, timeout, self.health())

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ConfigurationError("this consumer belongs to the process that made it: make one in each child")

    def _load_dsn(self) -> str:
        session = self._loop.link.session
        return self._target.dsn if session is None else session.dsn


def _nobody_waits() -> None:
    """What `wake` does before the loop runs."""
