"""Model calls of an execution and its descendants."""

import builtins
import json
from typing import Any, Final

from perdure.store.base.executions import unknown_execution
from perdure.store.base.interface import query, query_many, record, records, serves, verb
from perdure.store.verbs.base.idempotency import At
from perdure.store.verbs.base.pages import read_entries
from perdure.store.verbs.runs.find import id_bounds
from perdure.wire.agents.usage import CALLS_MAX, EXECUTIONS_MAX
from perdure.wire.agents.usage_sums import SpendingExecution, UsageFacts
from perdure.wire.base.entries import JournalEntry
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.status import FINAL
from perdure.wire.insight.spend import GetSpend, Spend, SpendSums
from perdure.wire.insight.stats import buckets_of

PAGE: Final = 50
VALUE_BYTES_MAX: Final = 1 << 20
AGENTS_MAX: Final = 500
AGENT_RUNS_MAX: Final = 2_000
AGENT_CALLS_MAX: Final = 5_000
AGENT_VALUE_BYTES_MAX: Final = 256 << 10


@verb(reads=True)
async def usage(*, project_id: str, execution_id: str) -> UsageFacts:
    """Raises NotFound."""
    root = await record(SpendingExecution, "spending_execution", project_id=project_id, id=execution_id)
    if root is None:
        raise unknown_execution(execution_id)
    tree, level = [root], [root]
    while level and len(tree) <= EXECUTIONS_MAX:
        level = await records(
            SpendingExecution,
            "spending_below",
            project_id=project_id,
            ids=json.dumps([one.id for one in level]),
            limit=EXECUTIONS_MAX + 1 - len(tree) + 1,
        )
        tree += level
    whole = len(tree) <= EXECUTIONS_MAX
    rows: list[JournalEntry] = []
    calls: dict[str, Any] = {"name": "model_calls", "chunk": PAGE, "bytes_max": VALUE_BYTES_MAX}
    for one in tree[:EXECUTIONS_MAX]:
        rows += await read_entries(one.id, one.kept_rows or 0, CALLS_MAX + 1 - len(rows), **calls)
    return UsageFacts(tree[:EXECUTIONS_MAX], rows[:CALLS_MAX], whole and len(rows) <= CALLS_MAX)


@serves(GetSpend, scans=True)
async def spend(at: At, op: GetSpend) -> Spend:
    """Sum the costs of executions that began in the range, newest first."""
    project_id, buckets = at.project_id, buckets_of(op.range, at.now_us)
    sums = SpendSums(buckets, at.now_us)
    names = [name for (name,) in await query("agent_names", project_id=project_id, limit=AGENTS_MAX)]
    bounds = {"project_id": project_id, "created_after_us": buckets.from_us, "created_before_us": None}
    _, floor_id = await id_bounds(bounds, FIRST_CURSOR)
    wanted = {"project_id": project_id, "floor_id": floor_id, "from_us": buckets.from_us, "limit": AGENT_RUNS_MAX + 1}
    of_agents = [wanted | {"workflow_id": name} for name in names if op.agent_id in (None, name)]
    rows = await query_many("ended_of_agent", [one | {"phase": phase} for one in of_agents for phase in sorted(FINAL)])
    rows += await query_many("open_of_agent", of_agents)
    runs = sorted(rows, reverse=True)
    whole = len(runs) <= AGENT_RUNS_MAX
    runs = runs[:AGENT_RUNS_MAX]
    for id, name in runs:
        sums.began(id, name)
    ids = [id for id, _ in runs]
    left = AGENT_CALLS_MAX
    for first in builtins.range(0, len(ids), PAGE):
        calls = await records(
            JournalEntry,
            "calls_of_agents",
            project_id=project_id,
            ids=json.dumps(ids[first : first + PAGE]),
            bytes_max=AGENT_VALUE_BYTES_MAX,
            limit=left + 1,
        )
        sums.add(calls[:left])
        left -= len(calls)
        if left < 0:
            break
    return sums.result(op.range, whole=whole and left >= 0)
