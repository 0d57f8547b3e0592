"""What an answer to a report stands for."""

from msgspec import Raw

from perdure.sdk.workers import reports
from perdure.wire.base.records import Kind
from perdure.wire.runs.executions import Row
from perdure.wire.runs.requests import ItemReply, ReportItem, StepDone


def test_rows_of_its_own_wait_for_those_before_them() -> None:
    """A reply that leaves rows out would make a gap in front of the worker's rows."""
    item = ReportItem("id", 1, 1, 1, [StepDone("s", "s", None, True, Raw(b"1"), 0, 1)])
    theirs = [Row(2, 0, Kind.CANCEL, 1)]
    whole = reports.merge(item, ItemReply(rows=theirs, accepted=[3]))
    assert [row.seq for row in whole] == [2, 3]
    assert reports.merge(item, ItemReply(rows=theirs, more=True, accepted=[9])) == theirs
