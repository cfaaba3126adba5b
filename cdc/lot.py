"""The parking lot of one consumer: what is parked, where it is kept, and whose turn it is again.

May use everything of the Postgres layer. Each deed goes to the table cdc.parked, else to the file that stands in for
it; while the file holds any, the table gets those first, so that their order stays. A deed that fits nowhere raises,
which ends the consumer before its position moves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.errors import CdcError, ConfigurationError
from cdc.events import Event
from cdc.jsonable import jsonable
from cdc.log import log
from cdc.message import Message
from cdc.park_file import ParkFile, default_path
from cdc.parked import Kept, Parked, parked_id, position_of
from cdc.parking import Deed, count_parked, load_parked, now, parked_fields, perform, reason_of, requested
from cdc.payload import event_of, operation_of, payload_of, type_oids
from cdc.session import Session
from cdc.subscription import Subscription
from cdc.values import Types

__all__ = ["AT_ONCE", "Lot", "check_request"]

AT_ONCE = 100
"""Requests that are looked at together."""


class Lot:
    """What is parked. Each method may be called from any thread, and may block for a round trip.

    Attributes:
        count: how many events are parked of the slot.
        is_used: whether a subscription has `on_error="park"`.
        is_asked: whether another attempt was asked for in this process.
    """

    def __init__(
        self,
        session: Callable[[], Session | None],
        path: Path | None,
        decoders: Mapping[str, Callable[[str], object]],
    ) -> None:
        self.count = 0
        self._reason: str | None = None
        self.is_used = False
        self.is_asked = False
        self._session = session
        self._path = path
        self._decoders = decoders
        self._mutex = threading.RLock()
        self._slot: str | None = None
        self._file: ParkFile | None = None

    @property
    def problem(self) -> str | None:
        """Why events are parked in the file, or None."""
        if self._reason is None or self._file is None:
            return None
        return f"{self._reason}. Meanwhile parked events go to {self._file.path}"

    def attend(self, subscription: Subscription) -> None:
        """Before the first event: learn what of this subscription is parked already.

        Raises ConfigurationError when the file is none of this slot's.
        """
        session = self._session()
        assert session is not None
        with self._mutex:
            self._begin(session)
            kept = Kept()
            for each in self._load(session.control, subscription.name):
                if each.superseded_by is None:
                    kept.add(each)
            subscription._parked = kept
            self.is_used = True
        self.look()

    def park(self, subscription: Subscription, event: Any, error: BaseException, attempts: int) -> None:
        """Keep the event, durably. Raises CdcError when that is possible nowhere."""
        with self._mutex:
            deed = self._parking(subscription, event, error, attempts)
            try:
                self._do(deed)
            except CdcError as failure:
                told = f"{subscription.name!r} did not take {event!r} ({deed['error_type']}: {deed['error']})"
                raise CdcError(f"{told}, and {failure}") from error
            self._keep(subscription, parked_fields(deed))
        log.warning(
            "event.parked", id=deed["id"], subscription=subscription.name, position=deed["position"], reason=str(error)
        )

    def settle(self, subscription: Subscription, itself: str | None, outdated: Collection[str], by: str | None) -> None:
        """The handler has taken an event: it is not parked any more, and earlier ones of its row are out of date."""
        with self._mutex:
            for id in outdated:
                if id != itself:
                    self._do({"do": "supersede", "id": id, "by": by})
                    log.warning("parked.superseded", id=id, by=by)
            if itself is not None:
                self._do({"do": "remove", "id": itself})
                self.count = max(0, self.count - 1)
            if subscription._parked is not None:
                subscription._parked.discard([*outdated, *([] if itself is None else [itself])])

    def failed(self, parked: Parked, error: BaseException) -> None:
        """One more attempt came to nothing."""
        name, text = _told(error)
        log.warning("parked.failed", id=parked.id, subscription=parked.subscription, reason=f"{name}: {text}")
        with self._mutex:
            self._do({"do": "fail", "id": parked.id, "error_type": name, "error": text})

    def look(self) -> None:
        """See how many there are, and move what the file holds into the table when that is possible again."""
        session = self._session()
        if session is None or self._slot is None:
            return
        with self._mutex:
            if self._held(session):
                self.count = len(self._all(session.control))
                return
            try:
                with session.busy():
                    self.count = count_parked(session.control, self._slot)
                self._well()
            except psycopg.Error as error:
                self._trouble(reason_of(error))

    def requests(self, names: Collection[str]) -> list[Parked]:
        """Those of these subscriptions of which another attempt is asked for, the oldest first."""
        session = self._session()
        if session is None or self._slot is None or self._file is None:
            return []
        self.is_asked = False
        with self._mutex:
            if self._file.stamp() is not None:
                asked = (each for each in self._all(session.control) if each.requested_at is not None)
                return [each for each in asked if each.subscription in names][:AT_ONCE]
            try:
                with session.busy():
                    return requested(session.control, self._slot, names, AT_ONCE)
            except psycopg.Error as error:
                self._trouble(reason_of(error))
                return []

    def may_retry(self, parked: Parked, subscription: Subscription) -> bool:
        """Whether a request is served. One that is refused is forgotten."""
        reason = None
        if parked.superseded_by is not None and not parked.forced:
            reason = f"a later change of its row was delivered, at {parked.superseded_by}"
        elif (denied := _denied(parked, subscription)) is not None:
            reason = f"the subscription sees nothing at the moment: {denied}"
        if reason is None:
            return True
        log.warning("parked.refused", id=parked.id, reason=reason)
        with self._mutex:
            self._do({"do": "refuse", "id": parked.id})
        return False

    def event(self, parked: Parked) -> Event | Message:
        """The event as it was delivered. Raises ConfigurationError when the payload is not one."""
        session = self._session()
        assert session is not None
        types = Types(self._decoders)  # As they are now: they may have been altered since the last one.
        missing = types.missing(type_oids(parked.payload))
        if missing:
            types.add(load_types(session.control, missing))
        return event_of(parked.payload, types)

    # For users, on a connection of their own.

    def records(self, dsn: str) -> list[Parked]:
        """Everything that is parked of the slot, the oldest first."""
        with connect(dsn) as connection:
            self._known_slot()
            return self._all(connection)

    def request(self, dsn: str, id: str, force: bool) -> None:
        """Ask for another attempt. Raises ConfigurationError for an unknown id, CdcError for one that is refused."""
        with connect(dsn) as connection, self._mutex:
            check_request(self._find(connection, id), force)
            self._do({"do": "request", "id": id, "forced": force, "at": now().isoformat()}, connection)
            self.is_asked = True

    def drop(self, dsn: str, id: str) -> None:
        """Forget a parked event for ever. Raises ConfigurationError for an unknown id."""
        with connect(dsn) as connection, self._mutex:
            self._find(connection, id)
            self._do({"do": "remove", "id": id}, connection)
            self.count = max(0, self.count - 1)

    def _find(self, connection: psycopg.Connection[Any], id: str) -> Parked:
        slot = self._known_slot()
        for each in self._all(connection):
            if each.id == id:
                return each
        raise ConfigurationError(f"there is no parked event {id!r} of slot {slot!r}")

    def _known_slot(self) -> str:
        session = self._session()
        if self._slot is None and session is not None:
            self._begin(session)
        if self._slot is None:
            raise ConfigurationError("the consumer is not open yet: parked events can be read once it is")
        return self._slot

    # Where deeds go.

    def _begin(self, session: Session) -> None:
        """The slot's name at first: a temporary one has another after each reconnect, and means the same consumer."""
        if self._slot is None:
            self._slot = session.slot.name
            self._file = ParkFile(self._path or default_path(self._slot), self._slot, session.saved.system_id)
            try:
                self._file.deeds()  # Raises when it is another slot's.
            except OSError as error:
                if self._path is not None:
                    raise ConfigurationError(
                        f"{self._path} cannot be read: {error.strerror}: give another park_file"
                    ) from None
                log.warning("parking.file", reason=str(error), path=str(self._file.path))

    def _do(self, deed: Deed, connection: psycopg.Connection[Any] | None = None) -> None:
        session = self._session()
        assert session is not None and self._file is not None
        if not self._held(session):
            try:
                with session.busy():
                    perform(connection or session.control, deed)
                self._well()
                return
            except psycopg.Error as error:
                self._trouble(reason_of(error))
        try:
            self._file.append(deed)
        except OSError as error:
            raise CdcError(
                f"parked events can be kept nowhere: {self._reason}; and {self._file.path}: {error.strerror}. Mend "
                "one of them and start again: what was not kept is not acknowledged and comes again"
            ) from error

    def _held(self, session: Session) -> bool:
        """Whether the file holds anything that the table cannot get yet."""
        assert self._file is not None
        if self._file.stamp() is None:
            return False
        try:
            with session.busy():
                moved = self._file.move(lambda deed: perform(session.control, deed))
        except psycopg.Error as error:
            self._trouble(reason_of(error))
            return True
        except OSError as error:
            self._trouble(f"{self._file.path}: {error.strerror}")
            return True
        log.info("parked.moved", deeds=moved, path=str(self._file.path))
        return False

    def _load(self, connection: psycopg.Connection[Any], subscription: str | None = None) -> list[Parked]:
        """What the table and the file together say."""
        return [each for each in self._all(connection) if subscription in (None, each.subscription)]

    def _all(self, connection: psycopg.Connection[Any]) -> list[Parked]:
        assert self._file is not None
        try:
            known = load_parked(connection, self._slot)
        except psycopg.Error as error:
            self._trouble(reason_of(error))
            known = []
        with _readable(self._file.path):
            return list(self._file.over({each.id: each for each in known}).values())

    def _keep(self, subscription: Subscription, parked: Parked) -> None:
        if subscription._parked is None:
            subscription._parked = Kept()
        self.count += not subscription._parked.has(parked.id)
        subscription._parked.add(parked)

    def _trouble(self, reason: str) -> None:
        assert self._file is not None
        if reason != self._reason:
            log.warning("parking.file", reason=reason, path=str(self._file.path))
        self._reason = reason

    def _well(self) -> None:
        self._reason = None

    def _parking(self, subscription: Subscription, event: Any, error: BaseException, attempts: int) -> Deed:
        assert self._slot is not None
        name, text = _told(error)
        return {
            "do": "park",
            "id": parked_id(self._slot, subscription.name, event),
            "slot": self._slot,
            "subscription": subscription.name,
            "position": position_of(event),
            "schema": getattr(event, "schema", None),
            "table": getattr(event, "table", None),
            "key": jsonable(getattr(event, "key", None)),
            "operation": operation_of(event),
            "payload": payload_of(event),
            "error_type": name,
            "error": text,
            "attempts": attempts,
            "parked_at": now(),
        }


def check_request(parked: Parked, force: bool) -> None:
    """Raise CdcError when another attempt would set a row back to what it was, unless that is wanted."""
    if parked.superseded_by is not None and not force:
        raise CdcError(
            f"parked event {parked.id} is out of date: a later change of its row was delivered to "
            f"{parked.subscription!r}, at {parked.superseded_by}. Force the retry if that does no harm, or drop it"
        )


def _denied(parked: Parked, subscription: Subscription) -> str | None:
    """Why the subscription sees nothing of the event's table at the moment; a family may see others of its tables."""
    table = (parked.schema, parked.table)
    denied = [each.denied for each in subscription.parts if parked.table is None or (each.schema, each.table) == table]
    if not denied:
        return subscription.denied
    return None if None in denied else denied[0]


def _told(error: BaseException) -> tuple[str, str]:
    """The error's class and text, without what a server cannot store."""
    text = str(error).replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return type(error).__name__, text


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CdcError(f"{path} cannot be read: {error.strerror}") from error
