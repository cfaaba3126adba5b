"""What is read beside the stream: the tables of those subscriptions that begin with their rows, and of stores.

Part of the loop, which asks here for both.
"""

from __future__ import annotations

from collections.abc import Callable

from cdc.delivery import Delivery
from cdc.dispatcher import Dispatcher
from cdc.filling import Filling
from cdc.housekeeping import Housekeeping
from cdc.keeping import Keeping
from cdc.progress import Progress
from cdc.session import Session
from cdc.snapshotting import Snapshotting
from cdc.storing.feed import Feed
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.target import Target
from cdc.waiting import Steps

__all__ = ["Beside"]


class Beside(Snapshotting):
    """Reads tables, for snapshots and for stores. The arguments are those of `Snapshotting`.

    Attributes:
        stores: fills stores.
        files: saves the files of stores.
    """

    def __init__(
        self,
        target: Target,
        dispatcher: Dispatcher,
        delivery: Delivery,
        house: Housekeeping,
        progress: Progress,
        wake: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        super().__init__(target, dispatcher, delivery, house, progress, wake, is_stopping)
        self.files = Keeping(house, progress, is_stopping)
        self.stores = Filling(target, dispatcher, delivery, house, wake, self.files)

    @property
    def is_busy(self) -> bool:
        """See `Snapshotting.is_busy`."""
        return super().is_busy or self.stores.is_busy or self.files.is_busy

    def is_ready(self, stream: Stream) -> bool:
        """See `Snapshotting.is_ready`."""
        return super().is_ready(stream) or self.stores.is_ready(stream)

    def patience(self, usual: float) -> float:
        """See `Snapshotting.patience`."""
        return self.stores.patience(super().patience(usual))

    def begin(self, session: Session) -> Steps:
        """See `Snapshotting.begin`."""
        self.stores.begin()
        yield from super().begin(session)

    def add(self, subscription: Subscription, session: Session) -> None:
        """See `Snapshotting.add`."""
        if isinstance(subscription, Feed):
            self.stores.add(subscription, session)
        else:
            super().add(subscription, session)

    def steps(self, session: Session, stream: Stream) -> Steps:
        """See `Snapshotting.steps`."""
        if super().is_busy:
            yield from super().steps(session, stream)
        if self.stores.is_busy and not self._house.holds:
            yield from self.stores.steps(session, stream)
        if self.files.is_busy and not self._house.holds:
            yield from self.files.steps(session)

    def fail(self, error: BaseException) -> None:
        """See `Snapshotting.fail`."""
        super().fail(error)
        self.stores.fail(error)
        self.files.close()

    def close(self) -> None:
        """See `Snapshotting.close`."""
        super().close()
        self.stores.close()

    def notes(self) -> list[str]:
        """See `Snapshotting.notes`."""
        return [*super().notes(), *self.stores.notes(), *self.files.notes()]
