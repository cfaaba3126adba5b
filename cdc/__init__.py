"""Change data capture for PostgreSQL inside your own Python process.

A consumer reads a replication slot, decodes pgoutput, decides row-level security, and hands typed events to
handlers and caches. Start at `Consumer` or `AsyncConsumer`.
"""

from __future__ import annotations

from cdc.async_cache import AsyncCache
from cdc.async_consumer import AsyncConsumer
from cdc.async_store import AsyncStore
from cdc.caching.cache import Cache
from cdc.caching.entries import Uncached
from cdc.committed_transaction import CommittedTransaction
from cdc.consumer import Consumer
from cdc.errors import (
    CdcError,
    ConfigurationError,
    ConnectionFailed,
    DecodeError,
    FailureKind,
    GapError,
    HandlerError,
    NotYetVisible,
    SlotError,
    SubscriptionError,
    UnsupportedMessage,
)
from cdc.events import (
    Change,
    Delete,
    Effect,
    Event,
    Gap,
    GapKind,
    Insert,
    Prepared,
    Read,
    SchemaChange,
    Truncate,
    Update,
)
from cdc.explaining import explain
from cdc.explanation import ExplainedPolicy, Explanation, ServerAnswer
from cdc.family import Family
from cdc.health import Colour, Health, Status, StatusChange
from cdc.lsn import Lsn, Position
from cdc.message import Message
from cdc.parked import Parked
from cdc.reconnect import Backoff, Failure
from cdc.recorder import Recorder
from cdc.rls import Subject
from cdc.row import Row
from cdc.server import current_lsn
from cdc.snapshot_progress import SnapshotProgress
from cdc.storing.store import Store
from cdc.storing.store_change import StoreChange
from cdc.subscription import Subscription
from cdc.tuples import UNCHANGED, Undecoded

__all__ = [
    "UNCHANGED",
    "AsyncCache",
    "AsyncConsumer",
    "AsyncStore",
    "Backoff",
    "Cache",
    "CdcError",
    "Change",
    "Colour",
    "CommittedTransaction",
    "ConfigurationError",
    "ConnectionFailed",
    "Consumer",
    "DecodeError",
    "Delete",
    "Effect",
    "Event",
    "ExplainedPolicy",
    "Explanation",
    "Failure",
    "FailureKind",
    "Family",
    "Gap",
    "GapError",
    "GapKind",
    "HandlerError",
    "Health",
    "Insert",
    "Lsn",
    "Message",
    "NotYetVisible",
    "Parked",
    "Position",
    "Prepared",
    "Read",
    "Recorder",
    "Row",
    "SchemaChange",
    "ServerAnswer",
    "SlotError",
    "SnapshotProgress",
    "Status",
    "StatusChange",
    "Store",
    "StoreChange",
    "Subject",
    "Subscription",
    "SubscriptionError",
    "Truncate",
    "Uncached",
    "Undecoded",
    "UnsupportedMessage",
    "Update",
    "__version__",
    "current_lsn",
    "explain",
]

__version__ = "0.1.0"
