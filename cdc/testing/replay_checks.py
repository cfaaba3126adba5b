"""Checks of a stream: order, links, nothing twice, nothing missing.

Reads recordings. `check_stream` looks at events as a handler received them. `check_recording` looks at the frames with
a decoder of its own, lets the consumer's code replay them, and compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cdc.collector import events_of
from cdc.errors import CdcError
from cdc.events import Event, Gap
from cdc.lsn import Lsn, Position
from cdc.message import Message
from cdc.prepared import Prepared
from cdc.recording import Batch, Conversation, End, Recording, Told
from cdc.relation import Relation
from cdc.schema_change import SchemaChange
from cdc.testing.replay_frames import FrameChecks
from cdc.testing.replays import Replay

__all__ = ["Checked", "StreamChecks", "check_recording", "check_stream"]

_MOST = 100
"""Problems that are told; one lost frame can make many."""


@dataclass(slots=True)
class Checked:
    """What a check has found.

    Attributes:
        events: events that were looked at.
        again: events that came again because a consumer was started anew, which is allowed.
        frames: frames that were looked at.
        problems: what is wrong, in words; empty when nothing is.
        notes: what is to be known, and not wrong.
    """

    events: int = 0
    again: int = 0
    frames: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check_stream(events: Iterable[Any], *, restarts: bool = False) -> Checked:
    """Look at the events of one subscription, in the order in which its handler received them.

    Positions have to grow, `previous` has to name the event before, and nothing may be there twice.

    Args:
        events: what the handler received: events, lists of them or whole transactions.
        restarts: whether they are of several processes, one after the other. Then an event without `previous` begins
            anew, and from there on events may be there again: a process that was killed could not say what it had.
    """
    checks = StreamChecks()
    for event in (each for handed in events for each in events_of(handed)):
        if restarts and not isinstance(event, Prepared) and event.previous is None:
            checks.begin_anew()
        checks.see(event)
    return checks.found


def check_recording(path: str | Path) -> Checked:
    """Look at a recorded stream: at its frames, at the events of all its tables, and whether these are those.

    Raises ConfigurationError when the file cannot be read or is no recording.
    """
    recording = Recording(path)
    frames = _check_frames(recording)
    checks = StreamChecks(whole=True)
    found = checks.found
    found.frames = frames.frames
    broken_off: set[int] = set()
    try:
        broken_off = _replay(path, checks)
    except CdcError as error:
        frames.problems.append(str(error))
    if not frames.problems:
        missing = frames.expected(broken_off) - checks.positions
        frames.problems += [f"{each}: it is in the frames, and was not delivered" for each in sorted(missing, key=str)]
    if recording.note is not None:
        found.notes.append(recording.note)
    found.notes = list(dict.fromkeys(found.notes))
    found.problems = list(dict.fromkeys([*frames.problems, *found.problems]))[:_MOST]
    return found


def _check_frames(recording: Recording) -> FrameChecks:
    checks = FrameChecks()
    acts = {Conversation: checks.conversation, Batch: checks.batch, Told: checks.told, End: checks.end}
    try:
        for record in recording:
            acts[type(record)](record)  # type: ignore[operator]
    except CdcError as error:
        checks.problems.append(str(error))
    return checks


def _replay(path: str | Path, checks: StreamChecks) -> set[int]:
    """Replay all tables; the numbers of the conversations that broke off in their last frames."""
    replay = Replay(path, on_gap="deliver", on_run=checks.begin_anew)
    for table in replay.tables:
        replay.subscribe(table, partial(checks.see, subscription=table))
    if replay.has_messages:
        replay.on_message("*")(partial(checks.see, subscription="messages"))
    replay.run()
    return replay._loop.link.reading.broken_off


class StreamChecks:
    """Looks at events, one after the other, of any number of subscriptions.

    Args:
        whole: whether the subscriptions named no operations, so that they are told of every SchemaChange.

    Attributes:
        found: what was found so far.
        positions: the positions of all changes.
    """

    def __init__(self, whole: bool = False) -> None:
        self.found = Checked()
        self._whole = whole
        self.positions: set[Position] = set()
        self._chains: dict[str, _Chain] = {}

    def begin_anew(self) -> None:
        """What follows is another process's: it may have to see again what this one had."""
        for chain in self._chains.values():
            chain.begin_anew()

    def see(self, event: Event, subscription: str = "") -> None:
        """Look at the next event of a subscription."""
        found = self.found
        found.events += 1
        if isinstance(event, Prepared):
            return  # It stands beside the changes: it has neither a position nor a link.
        chain = self._chains.setdefault(subscription, _Chain(self._whole))
        for problem in chain.see(event, found):
            if len(found.problems) < _MOST:
                found.problems.append(f"{event!r}: {problem}")
        if not isinstance(event, Gap | SchemaChange | Message):
            self.positions.add(event.position)


class _Chain:
    """The events of one subscription."""

    def __init__(self, whole: bool) -> None:
        self._whole = whole
        self._relation: Relation | None = None
        self._last: Position | None = None
        self._before: Position | None = None
        self._announced: Position | None = None
        self._gap = False
        self._heard: tuple[str, Lsn, Lsn] | None = None
        self._at_once = Lsn(0)

    def see(self, event: Event, found: Checked) -> Iterable[str]:
        """What is wrong with the next event."""
        assert not isinstance(event, Prepared)
        if event.previous != self._last:
            yield f"it names {event.previous} as the event before, which is {self._last}"
        if isinstance(event, Gap):
            self._gap = True
            self._at_once = Lsn(0)
            self._relation = None
            found.notes.append(f"changes may be missing behind {event.last}: {event.reason}")
            return
        if isinstance(event, Message):
            yield from self._message(event)
            return
        yield from self._order(event.position)
        former, self._relation = self._relation, event.relation
        if isinstance(event, SchemaChange):
            if event.position == self._announced:
                yield "it was told before"
            self._announced = event.position
            return
        if self._whole and former not in (None, event.relation):
            yield "its table looks different from the one before, and no SchemaChange said so"
        self._announced, self._gap = None, False
        before = self._before
        if before is not None and before.epoch == event.position.epoch and event.position <= before:
            found.again += 1
        self._last = event.position

    def _message(self, message: Message) -> Iterable[str]:
        """Messages at one position differ by their LSN; those that are not transactional stand beside the changes."""
        position = message.position
        if position is None:
            if message.lsn <= self._at_once:
                yield "a message of this LSN, or a later one, was delivered before"
            self._at_once = message.lsn
            return
        if position != self._last:
            yield from self._order(position)
        place, heard = (position.epoch, position.commit_lsn, message.lsn), self._heard
        if heard is not None and heard[0] == position.epoch and place <= heard:
            yield "a message of this LSN, or a later one, was delivered before"
        self._heard = place
        self._announced, self._gap, self._last = None, False, position

    def begin_anew(self) -> None:
        """What follows is another process's."""
        self._heard, self._at_once = None, Lsn(0)
        self._before, self._last, self._announced = self._last or self._before, None, None
        self._relation = None

    def _order(self, position: Position) -> Iterable[str]:
        if position == self._last:
            yield "it was delivered before"
        for place in (self._last, self._announced):
            if place is not None and place.epoch != position.epoch:
                if not self._gap:
                    yield f"it is of another epoch than {place}, and no gap was told"
            elif place is not None and position < place:
                yield f"it is older than {place}, which came before"
