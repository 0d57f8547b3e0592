"""Queues and their limits."""

from perdure.store.base.interface import Notify, Ready, query, record, records, serves
from perdure.store.verbs.base.idempotency import At
from perdure.wire.base.operation import Listed
from perdure.wire.runs.queues import GetQueue, ListQueues, QueueState
from perdure.wire.runs.requests import QueueSpec


async def put_queue(project_id: str, queue: QueueSpec, *, keep_total: bool = False) -> None:
    """Make a queue, or change its limits. Adding the first limit or removing the last marks the queue's open
    executions."""
    before = await record(QueueSpec, "read_queue", project_id=project_id, name=queue.name) or QueueSpec(queue.name)
    total_limit = before.total_limit if keep_total else queue.total_limit
    after = QueueSpec(queue.name, queue.concurrency_limit, total_limit)
    limited, was_limited = _is_limited(after), _is_limited(before)
    if limited and not was_limited:
        await query("begin_limits")
    await query("upsert_queue", after, project_id=project_id)
    if limited != was_limited:
        await query("mark_limited", project_id=project_id, name=after.name, gate=int(limited))
    if after != before:
        await Notify(Ready(project_id, None))  # executions of any deployment


def _is_limited(queue: QueueSpec) -> bool:
    return (queue.concurrency_limit, queue.total_limit) != (None, None)


@serves(ListQueues, scans=True)
async def list_queues(at: At, op: ListQueues) -> Listed[QueueState]:
    """List queues with limits, a pause, or executions that are ready or running."""
    return Listed(await records(QueueState, "list_queues", at, name=None))


@serves(GetQueue, scans=True)
async def get_queue(at: At, op: GetQueue) -> QueueState:
    return await record(QueueState, "list_queues", at, op) or QueueState(op.name)
