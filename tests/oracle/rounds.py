"""A round: one scene, several sets of policies, each row judged for each subject by both sides."""

from __future__ import annotations

from collections.abc import Hashable
from random import Random

import psycopg

from cdc.errors import SubscriptionError
from cdc.predicate import TRUE
from cdc.tuples import UNCHANGED
from tests.oracle.account import AGREE, DEFECT, LEAK, REASONED, Account, Failure
from tests.oracle.filter_round import play_filters
from tests.oracle.ground import Place
from tests.oracle.judging import Crash, Judged, Opinion, judge, reason_of, unsupported
from tests.oracle.scene import Policy, Scene, draw_policies, draw_scene
from tests.oracle.shrink import reproduction, shrink

__all__ = ["Enough", "play_round"]

_SETS = 12
_MOST_FAILURES = 25


class Enough(Exception):
    """The first failure was found, and no other one is wanted."""


class Round:
    """Plays one scene.

    Args:
        place: the database.
        seed: where chance comes from; the same seed plays the same scene.
        account: where verdicts are counted.
        brief: whether the first failure is enough; it is not made smaller, and raises `Enough`.
    """

    def __init__(self, place: Place, seed: str, account: Account, brief: bool = False) -> None:
        self.place, self.seed, self.account, self.brief = place, seed, account, brief
        self.draw = Random(seed)
        self._told: set[tuple[str, str]] = set()

    def play(self, number: int) -> None:
        """Make the scene, and judge some sets of policies on it."""
        scene = self._scene(number)
        self.place.play(scene)
        play_filters(self.place, self.seed, self.account)
        if self.brief and self.account.failures:
            raise Enough
        for _ in range(_SETS):
            drawn = draw_policies(self.draw, scene.columns, self.place.focus)
            accepted = self.place.policies(drawn)
            self.account.rejected += len(drawn) - len(accepted)
            try:
                self._judge(accepted)
            except Crash as crash:
                self._crashed(accepted, crash)

    def _crashed(self, policies: list[Policy], crash: Crash) -> None:
        """The least policies with which it still raises."""
        told = ("crash", str(crash))
        if told in self._told:
            return
        self._told.add(told)
        if self.brief:
            self.account.failures.append(Failure(str(crash), self.seed, "", self.account.total))
            raise Enough
        least = shrink(self.place, policies, self._crashes)
        text = "\n".join([*self.place.scene.create()[1:2], *(policy.sql(self.place.scene.table) for policy in least)])
        self.account.failures.append(Failure(str(crash), self.seed, text, self.account.total))

    def _crashes(self) -> bool:
        try:
            for each in judge(self.place, self.place.scene.subjects):
                for cells in self.place.cells:
                    if isinstance(each, Judged):
                        each.opinion(cells)
        except Crash:
            return True
        return False

    def _scene(self, number: int) -> Scene:
        while True:
            try:
                return draw_scene(self.draw, number, self.place.version, self.place.kinds)
            except SubscriptionError:  # claims that cannot be a subject's
                continue

    def _judge(self, policies: list[Policy]) -> None:
        place, account = self.place, self.account
        judged = judge(place, place.scene.subjects)
        problems = unsupported(place, judged)
        by_name = {policy.name: policy for policy in policies}
        for name, problem in problems.items():
            account.policy(by_name[name].condition.constructs, problem)
        keys = list(range(1, len(place.cells) + 1))
        groups: dict[Hashable, tuple[int, ...]] = {}
        for number, each in enumerate(judged):
            shown, errors = _truth(place, number, keys)
            account.checks["rows for which PostgreSQL raises"] += len(errors)
            for key in keys:
                self._compare(policies, number, key, key in shown, errors.get(key), each)
            if isinstance(each, Judged) and each.decision.denied is None:
                self._hidden(policies, number, each)
                self._group(policies, number, each, groups)

    def _compare(
        self, policies: list[Policy], number: int, key: int, visible: bool, error: str | None, each: Judged | str
    ) -> None:
        account, cells = self.account, self.place.cells[key - 1]
        opinion = each.opinion(cells) if isinstance(each, Judged) else Opinion(False, False, each)
        account.visible += visible
        if opinion.shows == visible:
            account.verdicts[AGREE] += 1
        elif opinion.shows and error is not None and isinstance(each, Judged) and each.decision.unsupported:
            # Another policy allows the row. Who has a policy like this one is refused when he subscribes.
            account.verdicts[AGREE] += 1
            account.checks["rows shown though a policy that is not supported raises"] += 1
        elif opinion.shows:
            account.verdicts[LEAK] += 1
            self._fail(LEAK, policies, number, key)
        elif opinion.reason is not None:
            account.verdicts[REASONED] += 1
            account.reasons[reason_of(opinion.reason)] += 1
            account.details[_short(opinion.reason)] += 1
        else:
            account.verdicts[DEFECT] += 1
            self._fail(DEFECT, policies, number, key)
        if isinstance(each, Judged) and each.decision.denied is None:
            if opinion.shows and not each.is_covered(cells):
                self._fail("its index does not find a row that it shows", policies, number, key)
            self._without_some(policies, number, key, visible, each)

    def _without_some(self, policies: list[Policy], number: int, key: int, visible: bool, each: Judged) -> None:
        """With cells that were not sent: what is shown is visible, and what is visible is not plainly hidden."""
        columns = each.decision.predicate.columns
        if not columns or each.decision.unsupported or self.draw.random() > 0.1:
            return
        unsent = {column for column in columns if self.draw.random() < 0.6}
        cells = [UNCHANGED if at in unsent else cell for at, cell in enumerate(self.place.cells[key - 1])]
        opinion = each.opinion(cells)
        self.account.checks["rows with cells that were not sent"] += 1
        if opinion.shows and not visible:
            self._fail(f"{LEAK}, without the cells {sorted(unsent)}", policies, number, key)
        if visible and opinion.reason is None and not opinion.may:
            self._fail(f"{DEFECT}, without the cells {sorted(unsent)}", policies, number, key)

    def _hidden(self, policies: list[Policy], number: int, each: Judged) -> None:
        truth = self.place.hidden[number]
        self.account.checks["sets of hidden columns"] += 1
        if truth != each.decision.hidden:
            told = f"PostgreSQL hides {sorted(truth)}, cdc {sorted(each.decision.hidden)}"
            self._fail(f"{LEAK if truth - each.decision.hidden else DEFECT} of columns: {told}", policies, number, 1)

    def _group(
        self, policies: list[Policy], number: int, each: Judged, groups: dict[Hashable, tuple[int, ...]]
    ) -> None:
        """Predicates with equal keys have equal outcomes."""
        predicate = each.decision.predicate
        if predicate.key is None:
            return
        outcomes = tuple(predicate.test(cells) for cells in self.place.cells)
        other = groups.setdefault(predicate.key, outcomes)
        self.account.checks["keys of predicates"] += 1
        if other != outcomes:
            differ = next(at for at, pair in enumerate(zip(other, outcomes, strict=True), 1) if pair[0] != pair[1])
            sort = LEAK if TRUE in (other[differ - 1], outcomes[differ - 1]) else DEFECT
            self._fail(
                f"{sort}: another subject's predicate has the same key and another outcome", policies, number, differ
            )

    def _fail(self, sort: str, policies: list[Policy], number: int, key: int) -> None:
        account = self.account
        names = (sort, ",".join(policy.name for policy in policies))
        if names in self._told or len(account.failures) >= _MOST_FAILURES:
            if names not in self._told:
                account.failures.append(Failure(sort, self.seed, "(not looked into: too many)", account.total))
                self._told.add(names)
            return
        self._told.add(names)
        least = policies
        if self.brief:
            account.failures.append(Failure(sort, self.seed, "", account.total))
            raise Enough
        if sort in (LEAK, DEFECT):
            least = shrink(self.place, policies, lambda: self._fails(sort, number, key))
        text = reproduction(self.place, least, number, key)
        account.failures.append(Failure(sort, self.seed, text, account.total))
        self.place.policies(policies)

    def _fails(self, sort: str, number: int, key: int) -> bool:
        """Whether a row of a subject still fails in this way, by the policies that are there now."""
        place = self.place
        each = judge(place, [place.scene.subjects[number]])[0]
        shown, _ = _truth(place, number, [key])
        if not isinstance(each, Judged):
            return False
        opinion = each.opinion(place.cells[key - 1])
        if sort == LEAK:
            return opinion.shows and key not in shown
        return not opinion.shows and opinion.reason is None and key in shown


def _truth(place: Place, number: int, keys: list[int]) -> tuple[set[int], dict[int, str]]:
    """What PostgreSQL shows to a subject; nothing, when it may not even ask."""
    try:
        return place.shown(number, keys)
    except psycopg.errors.InsufficientPrivilege:
        return set(), dict.fromkeys(keys, "42501")


def _short(reason: str) -> str:
    return reason if len(reason) <= 160 else f"{reason[:160]}…"


def play_round(place: Place, seed: str, number: int, account: Account, brief: bool = False) -> None:
    """Play one scene and count its verdicts."""
    Round(place, seed, account, brief).play(number)
