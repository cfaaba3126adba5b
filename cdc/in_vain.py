"""In vain: what somebody is told who has waited for something that did not come.

Does no I/O and never waits.
"""

from __future__ import annotations

from cdc.health import Health, Status
from cdc.lanes import Lanes
from cdc.lsn import Lsn
from cdc.subscription import Subscription

__all__ = ["not_complete", "not_reached"]


def not_reached(lsn: Lsn | str, timeout: float, health: Health, lanes: Lanes) -> TimeoutError:
    """Not everything up to an LSN was handled in time."""
    reasons = "; ".join((*health.reasons, *lanes.unfinished)) or "a handler may be slow"
    if health.status is Status.OFFLINE:
        reasons = "not started: call start() or run()"
    return TimeoutError(
        f"{lsn} was not handled within {timeout} s: handled up to {health.received_lsn}, {health.status} ({reasons})"
    )


def not_complete(subscription: Subscription, timeout: float, health: Health) -> TimeoutError:
    """The rows of a subscription's table were not read in time."""
    told = f"the snapshot was not complete within {timeout} s: {subscription.snapshot!r}"
    is_off = health.status is Status.OFFLINE
    return TimeoutError(told + ("; the consumer is not started: call start() or run()" if is_off else ""))
