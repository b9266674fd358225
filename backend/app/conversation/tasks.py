"""The tasks of one conversation: begun here, watched here, and gone when the conversation is."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

Work = Callable[..., Coroutine[Any, Any, None]]


class Tasks:
    """Begins tasks in the conversation's group. `prepare` is called at the start of each one; `on_defect` gets an
    exception that nobody expected."""

    def __init__(self, name: str, *, prepare: Callable[[], None], on_defect: Callable[[Exception], None]) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self._name = name
        self._prepare = prepare
        self._on_defect = on_defect
        self._group: asyncio.TaskGroup | None = None
        self._side: asyncio.Task[None] | None = None

    @property
    def opened(self) -> bool:
        """The conversation runs."""
        return self._group is not None

    def open(self, group: asyncio.TaskGroup) -> None:
        """From now on tasks can be begun."""
        self._group = group

    def spawn(self, work: Work, *what: object) -> asyncio.Task[None]:
        """Begin a task. Each kind of work tells of its failures itself: what comes out of it is a defect."""
        if self._group is None:
            raise RuntimeError("the conversation is not running")
        task = self._group.create_task(self._guard(work, *what))
        self.running.add(task)
        task.add_done_callback(self.running.discard)
        return task

    def side(self, work: Work, *what: object) -> None:
        """Begin work that is nice to have, one at a time: it makes room for what the user waits for."""
        if self._side is None or self._side.done():
            self._side = self.spawn(self._try, work, *what)

    def stop_side(self) -> None:
        """Make room."""
        if self._side:
            self._side.cancel()
            self._side = None

    def cancel(self) -> None:
        """End all."""
        for task in self.running:
            task.cancel()

    async def _guard(self, work: Work, *what: object) -> None:
        try:
            self._prepare()
            await work(*what)
        except Exception as error:
            self._on_defect(error)

    async def _try(self, work: Work, *what: object) -> None:
        try:
            await work(*what)
        except Exception as error:  # what is really broken shows when it is needed
            log.debug("%s: side work failed: %s", self._name, type(error).__name__)
