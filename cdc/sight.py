"""Sight: what a subscription may see of a relation, as something that can be compared.

Asks nothing. Two sights are equal only when it is certain that they show the same rows and columns.
"""

from __future__ import annotations

from collections.abc import Hashable

from cdc.errors import SubscriptionError
from cdc.judge import Judge
from cdc.relation import Relation
from cdc.subscription import Subscription

__all__ = ["sight"]


def sight(judge: Judge, subscription: Subscription, relation: Relation) -> Hashable:
    """What it may see of the relation by the rights that are known."""
    try:
        predicate, decision = judge.judge(subscription, relation)
    except SubscriptionError:
        return ("nothing", False)
    if decision is None:
        return ("everything", None if predicate is None else _key(predicate.key))
    if decision.denied is not None:
        return ("nothing", decision.granted)
    return (None if predicate is None else _key(predicate.key), decision.hidden)


def _key(key: Hashable) -> Hashable:
    """A predicate without a key is equal to none."""
    return object() if key is None else key
