"""The oracle over a stream: what many subscriptions of one consumer receive, against what PostgreSQL shows before and
after each commit.

A change enters, stays in or leaves a subscriber's view as the row is visible before and after it; what PostgreSQL
shows to the role, with the subscription's filter, says which. Rows carry what the role may select, and nothing else.
"""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

import psycopg

import cdc
from cdc.errors import SubscriptionError
from cdc.rls import Subject
from tests.oracle.account import AGREE, DEFECT, LEAK, REASONED, Account, Failure
from tests.oracle.filters import Filter, draw_filter
from tests.oracle.ground import Place
from tests.oracle.judging import judge, unsupported
from tests.oracle.rounds import Enough
from tests.oracle.scene import Policy, Scene, draw_policies, draw_row, draw_scene

__all__ = ["play_stream"]

_TRANSACTIONS = 12
_LARGE = 9000
_TRIALS = 20
_MOST_FAILURES = 2
"""Of one sort, in one scene: a stream that went wrong once goes wrong all the time."""


@dataclass(frozen=True, slots=True)
class Touched:
    """A row that a transaction changes: its keys before and after, and how."""

    sort: str
    before: int | None
    after: int | None


@dataclass(slots=True)
class Watcher:
    """One subscription, and what it has received."""

    number: int
    subject: Subject
    filter: Filter | None
    hidden: frozenset[str]
    events: list[Any] = field(default_factory=list)
    subscription: cdc.Subscription | None = None
    shown: set[int] = field(default_factory=set)
    undecided: int = 0

    @property
    def condition(self) -> str:
        """Its filter in SQL."""
        return self.filter.sql if self.filter else ""


class Stream:
    """Plays one scene through a consumer.

    Args:
        place: the database.
        seed: where chance comes from; the same seed plays the same scene.
        account: where verdicts are counted.
        brief: whether the first failure is enough; it raises `Enough`.
    """

    def __init__(self, place: Place, seed: str, account: Account, brief: bool = False) -> None:
        self.place, self.seed, self.account, self.brief = place, seed, account, brief
        self.draw = Random(seed)
        self.scene: Scene
        self.policies: list[Policy] = []
        self.living: dict[int, tuple[str | None, ...]] = {}
        self.next = 1
        self.script: list[str] = []
        self._told: Counter[str] = Counter()

    def play(self, number: int) -> None:
        """Make the scene, subscribe, commit and compare."""
        place = self.place
        self.scene = self._scene(number)
        place.play(self.scene)
        self.living = dict(enumerate(self.scene.rows, 1))
        self.next = len(self.living) + 1
        table = self.scene.table
        for statement in (
            *(f"ALTER TABLE {name} REPLICA IDENTITY FULL" for name in (table, *self.scene.parts)),
            "DROP PUBLICATION IF EXISTS oracle",
            f"CREATE PUBLICATION oracle FOR TABLE {table} WITH (publish_via_partition_root = true)",
        ):
            place.connection.execute(statement)
        self.policies = self._decidable()
        options = {"publication": "oracle", "slot": None, "rights_interval": 0.5}
        with cdc.Consumer(place.dsn, **options) as consumer:  # type: ignore[arg-type]
            watchers = self._watchers(consumer)
            consumer.start()
            for _ in range(_TRANSACTIONS):
                self._commit(consumer, watchers)
        place.connection.execute("DROP PUBLICATION oracle")

    def _scene(self, number: int) -> Scene:
        while True:
            try:
                return draw_scene(self.draw, number, self.place.version, self.place.kinds, rows=15, streamed=True)
            except SubscriptionError:  # claims that cannot be a subject's
                continue

    def _decidable(self) -> list[Policy]:
        """Random policies that cdc supports; subscribers under others are refused, which the oracle of rows sees."""
        supported: list[Policy] = []
        for _ in range(_TRIALS):
            drawn = self.place.policies(draw_policies(self.draw, self.scene.columns, self.place.focus))
            problems = unsupported(self.place, judge(self.place, self.scene.subjects))
            supported = [policy for policy in drawn if not problems.get(policy.name)]
            for policy in drawn:
                if policy.name in problems:
                    self.account.policy(policy.condition.constructs, problems[policy.name])
            if any(policy.permissive and policy.name in problems for policy in supported):
                break
        return self.place.policies(supported)

    def _watchers(self, consumer: cdc.Consumer) -> list[Watcher]:
        """Two subscriptions or so for each subject, some of them with a filter."""
        found = []
        for number, subject in enumerate(self.scene.subjects):
            hidden = self.place.hidden[number]
            for _ in range(self.draw.choice((1, 2, 3))):
                chosen = draw_filter(self.draw, self.scene.columns) if self.draw.random() < 0.4 else None
                watcher = Watcher(number, subject, chosen, hidden)
                try:
                    watcher.subscription = consumer.subscribe(
                        self.scene.table, watcher.events.append, subject=subject, filter=chosen and chosen.text
                    )
                except SubscriptionError as error:
                    self.account.checks["subscriptions that are refused"] += 1
                    self.account.details[f"refused: {str(error)[:110]}"] += 1
                    continue
                except Exception as error:
                    self._fail(f"subscribe raises {type(error).__name__}", f"-- {error}", watcher)
                    continue
                try:
                    watcher.shown = self._shown(watcher)
                except psycopg.Error as error:
                    told = f"-- PostgreSQL raises {error.sqlstate} for the condition {watcher.condition}"
                    self._fail("a filter that PostgreSQL refuses", told, watcher)
                    watcher.subscription.close()
                else:
                    found.append(watcher)
        self.account.checks["subscriptions"] += len(found)
        return found

    def _shown(self, watcher: Watcher) -> set[int]:
        """The keys of the rows that PostgreSQL shows to a subscription. Raises for a filter that it refuses."""
        keys = sorted(self.living)
        try:
            return self.place.shown(watcher.number, keys, watcher.condition)[0]
        except psycopg.errors.InsufficientPrivilege:
            # The filter may name a column that only cdc refuses; or there is no right at all.
            return set()

    def _commit(self, consumer: cdc.Consumer, watchers: list[Watcher]) -> None:
        """One transaction, and what everybody has had of it."""
        connection = self.place.connection
        with connection.transaction():
            touched = self._change()
        consumer.wait_for(cdc.current_lsn(connection), timeout=60)
        cells = {int(row[0] or b"0"): row for row in self.place.read()}
        for watcher in watchers:
            before, watcher.shown = watcher.shown, self._shown(watcher)
            received, watcher.events[:] = list(watcher.events), []
            self._compare(watcher, touched, before, received, cells)
        self.script.clear()

    def _change(self) -> list[Touched]:
        """Change a few rows, each once. Returns them in order."""
        draw, touched = self.draw, []
        free = list(self.living)
        draw.shuffle(free)
        for _ in range(draw.choice((1, 1, 2, 3, 6))):
            chance = draw.random()
            if chance < 0.25 or not free:
                touched.append(self._insert())
            elif chance < 0.4:
                touched.append(self._delete(free.pop()))
            else:
                touched.append(self._update(free.pop()))
        return touched

    def _insert(self) -> Touched:
        key, row = self._new_key(), self._row()
        self._execute(self.scene.insert(key, row))
        self.living[key] = row
        return Touched("Insert", None, key)

    def _delete(self, key: int) -> Touched:
        self._execute(f"DELETE FROM {self.scene.table} WHERE id = {key}")
        del self.living[key]
        return Touched("Delete", key, None)

    def _update(self, key: int) -> Touched:
        draw, scene = self.draw, self.scene
        row, fresh = list(self.living.pop(key)), self._row()
        places = draw.sample(range(len(row)), draw.choice((0, 1, 1, 2, 3)))
        for at in places:
            row[at] = fresh[at]
        after = self._new_key() if draw.random() < 0.15 and not scene.parts else key
        values = [f"id = {after}", *self._settings(places, row)]
        self._execute(f"UPDATE {scene.table} SET {', '.join(values)} WHERE id = {key}")
        self.living[after] = tuple(row)
        return Touched("Update", key, after)

    def _settings(self, places: list[int], row: list[str | None]) -> list[str]:
        return [f"{self.scene.columns[at].name} = {self.scene.cell(row[at])}" for at in places]

    def _row(self) -> tuple[str | None, ...]:
        """A random row, with large texts that do not stay in the row."""
        row = list(draw_row(self.draw, self.scene.columns))
        for at, column in enumerate(self.scene.columns):
            if column.kind.name == "text" and self.draw.random() < 0.2:
                row[at] = "a" + "".join(self.draw.choices(string.ascii_letters, k=_LARGE))
        return tuple(row)

    def _new_key(self) -> int:
        self.next += 1
        return self.next - 1

    def _execute(self, statement: str) -> None:
        self.script.append(statement)
        self.place.connection.execute(statement)  # type: ignore[arg-type]  # made here

    def _compare(
        self, watcher: Watcher, touched: list[Touched], before: set[int], received: list[Any], cells: dict[int, Any]
    ) -> None:
        expected = [each for each in (_expected(one, before, watcher.shown) for one in touched) if each is not None]
        events = {_keys(event): event for event in received if isinstance(event, cdc.Insert | cdc.Update | cdc.Delete)}
        told = [_described(event) for event in received]
        account = self.account
        assert watcher.subscription is not None
        undecided = watcher.subscription.undecided - watcher.undecided
        watcher.undecided += undecided
        account.visible += len(expected)
        missing = [each for each in expected if each not in told]
        surplus = [each for each in told if each not in expected]
        account.verdicts[AGREE] += len(touched) - len({_row_of(each) for each in (*missing, *surplus)})
        # A row that leaves was visible; that it came back is missing, and may have a reason.
        surplus = [each for each in surplus if each[1] != "LEAVE" or each[2] not in before]
        if surplus:
            account.verdicts[LEAK] += len(surplus)
            self._fail(f"{LEAK} in a stream", f"-- expected {expected}\n-- received {told}", watcher)
        elif missing and (undecided >= len(missing) or watcher.subscription.denied):
            account.verdicts[REASONED] += len(missing)
            account.reasons["undecided" if undecided else "denied"] += len(missing)
            account.details[f"stream: {watcher.subscription.denied or 'undecided'}"[:160]] += len(missing)
        elif missing:
            account.verdicts[DEFECT] += len(missing)
            self._fail(f"{DEFECT} in a stream", f"-- expected {expected}\n-- received {told}", watcher)
        elif told != expected:
            self._fail("changes out of order", f"-- expected {expected}\n-- received {told}", watcher)
        for event in events.values():
            self._contents(watcher, event, cells)

    def _contents(self, watcher: Watcher, event: Any, cells: dict[int, Any]) -> None:
        """Rows carry the columns that the role may select, and the cells that the table has."""
        names = {column.name for column in self.place.relation.columns} - watcher.hidden
        self.account.checks["rows received"] += 1
        for row in (event.old, event.new):
            if row is not None and set(row) != names:
                self._fail(f"{LEAK} of columns in a stream", f"-- {sorted(set(row) ^ names)} differ", watcher)
        if event.effect is cdc.Effect.LEAVE and event.new is not None:
            self._fail(f"{LEAK} of new values in a stream", f"-- {_described(event)}", watcher)
        if event.effect is cdc.Effect.ENTER and event.old is not None:
            self._fail(f"{LEAK} of old values in a stream", f"-- {_described(event)}", watcher)
        if event.new is None or event.key not in cells:
            return
        for at, column in enumerate(self.place.relation.columns):
            cell = cells[event.key][at]
            if column.name in names and event.new.text(column.name) != (None if cell is None else cell.decode()):
                self._fail("a cell that is not what the table has", f"-- column {column.name}", watcher)

    def _fail(self, sort: str, told: str, watcher: Watcher) -> None:
        self._told[sort] += 1
        if self._told[sort] > _MOST_FAILURES:
            return
        scene = self.scene
        lines = [f"-- PostgreSQL {self.place.version // 10000}, a stream of table {scene.table}"]
        lines += [f"{statement};" for statement in scene.create()[1:]]
        lines += [f"{policy.sql(scene.table)};" for policy in self.policies]
        lines.append(f"-- as role {watcher.subject.role} with {dict(watcher.subject.settings)}")
        lines.append(f"-- filter: {watcher.filter.text if watcher.filter else None}")
        lines += [f"{statement};" if len(statement) < 1000 else f"{statement[:1000]}…" for statement in self.script]
        lines.append(told)
        denied = watcher.subscription.denied if watcher.subscription else None
        lines.append(f"-- denied: {denied}; hidden: {', '.join(sorted(watcher.hidden)) or 'none'}")
        self.account.failures.append(Failure(sort, self.seed, "\n".join(lines), self.account.total))
        if self.brief:
            raise Enough


def _expected(touched: Touched, before: set[int], after: set[int]) -> tuple[Any, ...] | None:
    """What a subscriber is to hear of a row: the event's sort and effect, its key and its old key."""
    was, is_ = touched.before in before, touched.after in after
    if was and is_:
        return touched.sort, "STAY", touched.after, touched.before
    if is_:
        return touched.sort, "ENTER", touched.after, None if touched.sort == "Insert" else touched.after
    if was:
        return touched.sort, "LEAVE", touched.before, touched.before
    return None


def _described(event: Any) -> tuple[Any, ...]:
    if not isinstance(event, cdc.Insert | cdc.Update | cdc.Delete):
        return type(event).__name__, str(event), None, None
    return type(event).__name__, event.effect.value, event.key, event.old_key


def _row_of(described: tuple[Any, ...]) -> Any:
    return described[2]


def _keys(event: Any) -> tuple[Any, Any]:
    return event.key, event.old_key


def play_stream(place: Place, seed: str, number: int, account: Account, brief: bool = False) -> None:
    """Play one scene through a consumer and count its verdicts."""
    Stream(place, seed, account, brief).play(number)
