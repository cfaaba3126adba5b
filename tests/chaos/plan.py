"""Plans: what a round does, drawn from its seed. The same seed and fault give the same plan.

Touches nothing. To add a fault, add a line to `FAULTS`, and its action to `actions` when it comes from outside.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FAULTS", "Fault", "Injection", "Plan", "draw"]

SENDER_TIMEOUT = 1.0
"""The server's wal_sender_timeout, in seconds."""

_Trouble = Callable[[random.Random], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    Attributes:
        says: what happens, in words.
        actions: what is done from outside; one of them is drawn for each injection.
        trouble: draws what is wrong with the consumer itself in its first lives.
        ends: what may end the consumer by itself: a regular expression for the error that it prints.
        gap: whether changes may be lost, of which somebody has to be told.
        most: the most injections, or the most lives with a trouble.
        options: the consumer's settings in rounds of this fault.
        terms: the terms of the subscription in rounds of this fault; None: any of `_TERMS`.
        awaits: what is known not to work yet; such a fault is run only when it is named.
    """

    says: str
    actions: tuple[str, ...] = ()
    trouble: _Trouble | None = None
    ends: str | None = None
    gap: bool = False
    most: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    terms: Mapping[str, Any] | None = None
    awaits: str | None = None


def _raises(chance: random.Random) -> Mapping[str, Any]:
    return {"raise_at": chance.randint(1, 250)}


def _sleeps(chance: random.Random) -> Mapping[str, Any]:
    return {"sleep_at": chance.randint(1, 250), "seconds": 3 * SENDER_TIMEOUT, "blocking": chance.random() < 0.5}


def _fills(chance: random.Random) -> Mapping[str, Any]:
    return {"room": chance.randint(1000, 40000)}


_MENDED = (
    "kill-consumer", "stop-consumer", "kill-server", "fast-restart", "immediate-restart", "cut", "stall", "half-open",
    "ghost", "terminate-walsender",
)  # fmt: skip
"""What a consumer survives without losing anything."""

_UNPUBLISHED = "ConfigurationError|SubscriptionError"

_RESYNC = {"on_gap": "resync", "binary": False}

_TERMS: tuple[Mapping[str, Any], ...] = (
    {},
    {},
    {},
    {"queue": 20},
    {"batch": 10, "linger": 0.05},
    {"queue": 100, "batch": 20, "linger": 0.05},
    {"transaction": True},
)
"""How subscriptions are served: by a handler for each table; or by one handler for all of them, with these terms."""

FAULTS = {
    "none": Fault("nothing happens"),
    "kill-consumer": Fault("kill -9 of the consumer, which is started again", ("kill-consumer",)),
    "stop-consumer": Fault("SIGTERM to the consumer, which is started again", ("stop-consumer",)),
    "kill-server": Fault("kill -9 of the server's processes, or of one of them", ("kill-server",), most=1),
    "fast-restart": Fault("the server is restarted in good order", ("fast-restart",)),
    "immediate-restart": Fault("the server is restarted by a crash", ("immediate-restart",)),
    "cut": Fault("every TCP connection of the consumer ends", ("cut",), most=3),
    "stall": Fault("the network carries nothing for a while, and goes on", ("stall",)),
    "half-open": Fault("the server's ends of the connections are gone, the consumer's are not", ("half-open",), most=1),
    "silent-opening": Fault(
        "the server's ends are gone while the consumer connects again", ("silent-opening",), most=1,
    ),
    "ghost": Fault("the consumer's ends of the connections are gone, the server's are not", ("ghost",)),
    "slow-handler": Fault("a handler takes three times wal_sender_timeout", trouble=_sleeps, most=1),
    "failing-handler": Fault("a handler raises", trouble=_raises, ends="HandlerError"),
    "retried-handler": Fault("a handler raises, and is called again", trouble=_raises, most=1, terms={"retries": 3}),
    "parked-handler": Fault("a handler raises: parked", trouble=_raises, most=1, terms={"on_error": "park"}),
    "full-disk": Fault("the sink's file may not grow: a line is torn", trouble=_fills, ends="HandlerError|CdcError"),
    "drop-slot": Fault("the slot is dropped", ("drop-slot",), gap=True, most=1, options={"on_gap": "deliver"}),
    "terminate-walsender": Fault("pg_terminate_backend of the walsender", ("terminate-walsender",), most=3),
    "drop-publication": Fault(
        "the publication is dropped, and made again later", ("drop-publication",), ends=_UNPUBLISHED,
        gap=True, most=1, options={"on_gap": "deliver"},
    ),
    "swap-publication": Fault(
        "the publication is dropped, and made again at once", ("swap-publication",), ends=_UNPUBLISHED,
        gap=True, most=1, options={"on_gap": "deliver"},
    ),
    "resync-slot": Fault(
        "the slot is dropped, and the tables are read anew", ("drop-slot",), gap=True, most=1,
        options=_RESYNC, terms={},
    ),
    "resync-publication": Fault(
        "the publication is made again, and the tables are read anew", ("swap-publication",), ends=_UNPUBLISHED,
        gap=True, most=1, options=_RESYNC, terms={},
    ),
    "mixed": Fault("several of those that lose nothing", _MENDED, ends="ConnectionFailed", most=4),
}  # fmt: skip
"""By name. Each round has one of them."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One action from outside.

    Attributes:
        action: its name in `actions`.
        after: how many lines the sink gets before it happens.
        seconds: how long it lasts, where it lasts.
        variant: a number from 0 to 3, to choose between the ways of doing it.
    """

    action: str
    after: int
    seconds: float
    variant: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A round.

    Attributes:
        seed: what it was drawn from.
        fault: the name of its fault.
        asynchronous: whether the consumer is an `AsyncConsumer`.
        fsync: whether the sink waits for the disk.
        state_file: whether the position is kept in a file, not in the database.
        options: the consumer's other settings, as far as the server's version has them.
        terms: those of the one subscription to all tables; empty: each table has a subscription of its own.
        lives: the troubles of the consumer's first lives.
        injections: what is done from outside, in order.
    """

    seed: int
    fault: str
    asynchronous: bool
    fsync: bool
    state_file: bool
    options: Mapping[str, Any]
    terms: Mapping[str, Any]
    lives: tuple[Mapping[str, Any], ...]
    injections: tuple[Injection, ...]


def draw(seed: int, fault: str) -> Plan:
    """The plan for this seed and fault."""
    kind, chance = FAULTS[fault], random.Random(f"{seed}/{fault}")
    options = {
        "streaming": chance.choice(("on", "on", "off", "parallel")),
        "two_phase": chance.random() < 0.3,
        "binary": chance.random() < 0.2,
        "spool_memory": chance.choice((1 << 14, 16 << 20)),
    }
    asynchronous, fsync, state_file = (chance.random() < share for share in (0.5, 0.05, 0.25))
    times = chance.randint(1, kind.most)
    lives = tuple(kind.trouble(chance) for _ in range(times)) if kind.trouble is not None else ()
    injections = tuple(
        Injection(
            chance.choice(kind.actions),
            chance.randint(20, 400),
            round(chance.uniform(0.05, 1.2), 2),
            chance.randrange(4),
        )
        for _ in range(times if kind.actions else 0)
    )
    terms = chance.choice(_TERMS) if kind.terms is None else kind.terms
    return Plan(seed, fault, asynchronous, fsync, state_file, options | {**kind.options}, terms, lives, injections)
