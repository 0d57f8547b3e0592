"""Model calls of an execution and of all below it."""

import json
from typing import Final

from perdure.store.executions import unknown_execution
from perdure.store.interface import record, records, verb
from perdure.wire.usage import CALLS_MAX, EXECUTIONS_MAX
from perdure.wire.usage_sums import CallRow, SpendingExecution, UsageFacts

PAGE: Final = 50
VALUE_BYTES_MAX: Final = 1 << 20


@verb(looks=True)
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
    rows: list[CallRow] = []
    for one in tree[:EXECUTIONS_MAX]:
        after = one.kept_rows or 0
        page: list[CallRow] | None = None
        while page is None or len(page) == PAGE:
            if len(rows) >= CALLS_MAX:
                return UsageFacts(tree[:EXECUTIONS_MAX], rows, whole=False)
            page = await records(
                CallRow, "model_calls", execution_id=one.id, after=after, limit=PAGE, bytes_max=VALUE_BYTES_MAX
            )
            rows += page
            after = page[-1].seq if page else after
    return UsageFacts(tree[:EXECUTIONS_MAX], rows, whole)
