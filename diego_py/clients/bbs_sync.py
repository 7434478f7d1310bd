"""The BBS for programs without asyncio, ten lines long: ``with diego_py.connect() as bbs: bbs.desire({...})``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

from diego_py.clients.bbs import URL_DEFAULT, BbsClient, Definition, OnFailure, TaskOrder
from diego_py.clients.bbs_answers import CellStatus, Deleted, LogLine, Placed
from diego_py.models.actual_lrp import ActualLRP
from diego_py.models.desired_lrp import DesiredLRP
from diego_py.models.task import Task

T = TypeVar("T")


class SyncBbs:
    """The same without asyncio: ``with diego_py.connect() as bbs: bbs.desire(...)``. Of one thread only."""

    def __init__(self, url: str = URL_DEFAULT, *, wait_s: int | None = None) -> None:
        self._client = BbsClient(url, wait_s)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Use the object in a `with` statement and this is done for you."""
        self._run(self._client.__aexit__(None, None, None))
        self._runner.close()

    def desire(
        self, definition: Definition, *, on_failure: OnFailure = "keep", idempotency_key: str | None = None
    ) -> Placed:
        """As BbsClient.desire: returns when every instance is RUNNING."""
        return self._run(self._client.desire(definition, on_failure=on_failure, idempotency_key=idempotency_key))

    def replace(self, definition: Definition, *, max_in_flight: int = 1, if_match: str | None = None) -> Placed:
        """As BbsClient.replace: returns when every instance runs as this definition says."""
        return self._run(self._client.replace(definition, max_in_flight=max_in_flight, if_match=if_match))

    def get(self, process_guid: str) -> DesiredLRP:
        return self._run(self._client.get(process_guid))

    def list(self, domain: str | None = None) -> tuple[DesiredLRP, ...]:
        """All desired LRPs, or those of a domain."""
        return tuple(self._run(self._client.desired_lrps(domain)))

    def instances(self, process_guid: str | None = None) -> tuple[ActualLRP, ...]:
        """What runs, of one LRP or of all."""
        return tuple(self._run(self._client.actual_lrps(process_guid)))

    def scale(self, process_guid: str, instances: int) -> Placed:
        return self._run(self._client.scale(process_guid, instances))

    def restart(self, process_guid: str, index: int = 0) -> ActualLRP:
        return self._run(self._client.restart(process_guid, index))

    def stop(self, process_guid: str, index: int = 0) -> None:
        self._run(self._client.stop(process_guid, index))

    def delete(self, process_guid: str) -> Deleted:
        return self._run(self._client.delete(process_guid))

    def logs(self, process_guid: str, index: int = 0, *, tail: int = 100) -> tuple[LogLine, ...]:
        """The last lines that an instance wrote."""

        async def collected() -> tuple[LogLine, ...]:
            return tuple([line async for line in self._client.logs(process_guid, index, tail=tail)])

        return self._run(collected())

    def run_task(
        self,
        task: TaskOrder,
        *,
        until_completed: bool = False,
        on_failure: OnFailure = "keep",
        idempotency_key: str | None = None,
    ) -> Task:
        """As BbsClient.run_task: returns when the task runs, or when it has ended well."""
        work = self._client.run_task(
            task, until_completed=until_completed, on_failure=on_failure, idempotency_key=idempotency_key
        )
        return self._run(work)

    def task(self, task_guid: str, *, until_completed: bool = False) -> Task:
        return self._run(self._client.task(task_guid, until_completed=until_completed))

    def tasks(self, domain: str | None = None) -> tuple[Task, ...]:
        """All tasks, or those of a domain."""
        return tuple(self._run(self._client.tasks(domain=domain)))

    def cancel_task(self, task_guid: str) -> Task:
        return self._run(self._client.cancel_task(task_guid))

    def delete_task(self, task_guid: str) -> Task:
        return self._run(self._client.delete_task(task_guid))

    def cells(self) -> tuple[CellStatus, ...]:
        return tuple(self._run(self._client.cells()))

    def _run(self, work: Awaitable[T]) -> T:
        async def waited() -> T:
            return await work

        return self._runner.run(waited())


def connect(url: str = URL_DEFAULT, *, wait_s: int | None = None) -> SyncBbs:
    """A BBS for programs without asyncio; use it in a `with` statement."""
    return SyncBbs(url, wait_s=wait_s)
