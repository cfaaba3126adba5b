"""The service: a consumer made of a configuration, and how a consumer runs under a terminal or a supervisor.

The consumer works on a thread of its own, so that this thread always hears signals, also while libpq waits for the
server. The first SIGTERM or SIGINT asks for a clean stop; the second ends the process at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import structlog

from cdc import Backoff, CdcError, ConfigurationError, Consumer, Event, HandlerError, Status, Subject
from cdc.daemon.config import REDIS, Config, SubscriptionConfig, misspelt
from cdc.daemon.handlers import load_handler
from cdc.daemon.http import HealthServer
from cdc.daemon.log import configure_log
from cdc.sinks import JsonLines, RedisInvalidate

__all__ = ["Signals", "run_until_told", "serve"]

_GRACE = 2.0
"""Seconds that a stop waits for a consumer that is still connecting: it has nothing to save."""
_LOOK = 0.05
_REST = 0.5
_FRAMES = 5


class Signals:
    """What SIGTERM and SIGINT do, from `with` to its end. Before `stop` is set, they end the program as it is."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self.asked_at: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.asked_at is not None:
            os._exit(128 + number)
        self.asked_at = time.monotonic()
        if self.stop is None:
            raise SystemExit(0)
        self.stop()


def serve(config: Config, environment: dict[str, str], signals: Signals) -> None:
    """Do what the configuration says until a signal comes. Raises CdcError."""
    configure_log(config.log)
    log = structlog.get_logger("cdc.daemon")
    for name, near in misspelt(environment).items():
        log.warning("variable.unknown", name=name, did_you_mean=near)
    consumer = _consumer(config)
    with ExitStack() as stack:
        _subscribe(config, consumer, stack)
        server = HealthServer(config.http, consumer.health) if config.http is not None else None
        if server is not None:
            stack.enter_context(server)
        try:
            run_until_told(consumer, signals, lambda: _say_live(config, consumer, server))
        except BaseException as error:
            if consumer.health().status is Status.STOPPED:
                log.error("daemon.failed", reason=str(error), raised_at=_raised_at(error))
            raise
    health = consumer.health()
    log.info("daemon.stopped", slot=health.slot, confirmed_lsn=str(health.confirmed_lsn))


def _consumer(config: Config) -> Consumer:
    return Consumer(
        config.dsn.get_secret_value(),
        publication=config.publication,
        slot=config.slot,
        state=None if config.state == "none" else str(Path(config.state).expanduser()),
        on_gap=config.on_gap,
        fallback=config.fallback,
        require_subject=config.require_subject,
        backoff=Backoff(first=config.backoff_first, longest=config.backoff_longest),
        rights_interval=config.rights_interval,
        streaming=config.streaming,
        two_phase=config.two_phase,
        spool_memory=config.spool_memory,
        spool_folder=config.spool_folder,
        park_file=config.park_file,
        wait_for_slot=config.wait_for_slot,
        failover=config.failover,
        session_functions=config.session_functions,
        rights_dsn=None if config.rights_dsn is None else config.rights_dsn.get_secret_value(),
    )


def _subscribe(config: Config, consumer: Consumer, stack: ExitStack) -> None:
    """Make every subscription. A handler comes before the sink beside it, so that a line means: handled."""
    sinks: dict[str, JsonLines] = {}
    for number, each in enumerate(config.subscription, 1):
        try:
            if each.handler is not None:
                _add(consumer, each, load_handler(each.handler))
            if each.sink is not None:
                beside = " sink" if each.handler is not None else ""
                sink = _redis(each, stack) if each.sink == REDIS else _sink(each.sink, sinks, stack)
                _add(consumer, each, sink, beside)
        except ConfigurationError as error:
            raise ConfigurationError(f"[[subscription]] number {number}, {each.table}: {error}") from None


def _sink(name: str, sinks: dict[str, JsonLines], stack: ExitStack) -> JsonLines:
    """The sink of that name; subscriptions that name the same file share it."""
    path = None if name == "stdout" else Path(name).expanduser()
    place = "stdout" if path is None else str(path.resolve())
    if place not in sinks:
        try:
            sinks[place] = JsonLines(path)
        except ConfigurationError as error:
            raise ConfigurationError(f"sink: {error}") from None
        stack.callback(_close, sinks[place])
    return sinks[place]


def _redis(each: SubscriptionConfig, stack: ExitStack) -> RedisInvalidate:
    assert each.redis is not None and each.keys is not None
    sink = RedisInvalidate(
        each.redis.get_secret_value(),
        *each.keys,
        publish=each.publish,
        tombstone_ttl=each.tombstone_ttl,
        clears_at_start=each.clears_at_start,
        sweeps=each.sweeps,
    )
    stack.callback(sink.close)
    return sink


def _close(sink: JsonLines) -> None:
    try:
        sink.close()
    except OSError as error:
        raise CdcError(f"{sink}: its last lines may not have reached the disk: {error.strerror}") from None


def _add(consumer: Consumer, each: SubscriptionConfig, handler: Callable[[Event], Any], beside: str = "") -> None:
    subject = None if each.role is None else Subject(each.role, each.claims, each.settings)
    consumer.subscribe(
        each.table,
        handler,
        operations=each.operations,
        filter=each.filter,
        subject=subject,
        accept_undecided=each.accept_undecided,
        name=each.name and each.name + beside,
        retries=each.retries,
        on_error=each.on_error,
        snapshot=each.snapshot,
    )


def _say_live(config: Config, consumer: Consumer, server: HealthServer | None) -> None:
    structlog.get_logger("cdc.daemon").info(
        "daemon.live",
        slot=consumer.health().slot,
        publication=", ".join(config.publication),
        subscriptions=[_described(each) for each in config.subscription],
        healthz=server and server.url,
    )


def _described(each: SubscriptionConfig) -> str:
    """A subscription in a few words; no claims."""
    who = "" if each.role is None else f" as {each.role}"
    what = "" if each.filter is None else f" where {each.filter}"
    return f"{each.table}{who}{what} to {' and '.join(filter(None, (each.handler, each.sink)))}"


def _raised_at(error: BaseException) -> list[str] | None:
    """Where a handler raised: its innermost lines, the last one first, without the line that called it."""
    if not isinstance(error, HandlerError) or error.__cause__ is None:
        return None
    frames = reversed(traceback.extract_tb(error.__cause__.__traceback__)[1:][-_FRAMES:])
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


# Running a consumer.


class _Worker(threading.Thread):
    """Runs a consumer from its opening to its close."""

    failure: BaseException | None = None

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(name="cdc-consumer", daemon=True)
        self._consumer = consumer

    def run(self) -> None:
        try:
            with self._consumer:
                self._consumer.run()
        except BaseException as error:
            self.failure = error


def run_until_told(consumer: Consumer, signals: Signals, when_live: Callable[[], None]) -> None:
    """Run the consumer until a signal, or its own `stop`, ends it.

    Calls `when_live` once. Raises what ended the consumer, unless it was told to stop before it was connected.
    """
    worker = _Worker(consumer)
    signals.stop = consumer.stop
    worker.start()
    told = False
    while worker.is_alive():
        worker.join(_REST if told else _LOOK)
        if not told and consumer.health().status is Status.LIVE:
            told = True
            when_live()
        if _is_idle(consumer, signals):
            return
    if worker.failure is not None and not (signals.asked_at is not None and _is_connecting(consumer)):
        raise worker.failure


def _is_connecting(consumer: Consumer) -> bool:
    return consumer.health().status in (Status.OFFLINE, Status.CONNECTING)


def _is_idle(consumer: Consumer, signals: Signals) -> bool:
    """Whether it was told to stop and still only tries to connect."""
    asked_at = signals.asked_at
    return asked_at is not None and _is_connecting(consumer) and time.monotonic() - asked_at > _GRACE
