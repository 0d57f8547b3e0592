"""A large value that the execution has already is stored once, because the log and the file hold each stored value.

A step's value equal to the payload is stored empty, as is a result equal to the value of a step (`result_seq`).
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Raw, structs

from perdure.store.base.executions import JournalRow
from perdure.store.base.interface import query, value
from perdure.wire.base.records import Kind

SHARED_BYTES_MIN: Final = 16 << 10
ROWS_BACK: Final = 20
"""Newest rows compared with a result."""


async def share(rows: Sequence[JournalRow]) -> Sequence[JournalRow]:
    """The rows to insert. Call only with a large row."""
    return [await _shared(row) if is_large(row.value) and row.kind is Kind.STEP and row.ok else row for row in rows]


async def _shared(row: JournalRow) -> JournalRow:
    execution_id = row.execution_id
    if not await query("payload_of_size", execution_id=execution_id, size=len(row.value)):
        return row
    same = await query("equals_payload", execution_id=execution_id, value=bytes(row.value))
    return structs.replace(row, value=b"") if same else row


async def step_of_result(execution_id: str, result: bytes, seen: int) -> int | None:
    """The number of the row whose value equals a large result, among the newest rows seen by the worker."""
    if not (seen and is_large(result)):
        return None
    rows = {"execution_id": execution_id, "after": seen - ROWS_BACK, "upto": seen, "size": len(result)}
    if not await query("any_step_of_size", **rows):
        return None
    found: int | None = await value("step_of_value", value=result, **rows)
    return found


def is_large(data: bytes | Raw) -> bool:
    return len(data) >= SHARED_BYTES_MIN
