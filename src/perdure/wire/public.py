"""Shapes of the public API, with the contract's names. Times are RFC 3339 with offset; values are JSON byte for byte.

Contract requests ignore unknown fields, which clients of other versions send. Requests that Perdure added refuse them
(`wire/requests.py`). A reply's fields with defaults may be null.
"""

from typing import Annotated

from msgspec import Meta

from perdure.wire.fields import (
    Double as Double,
    INT64_MAX as INT64_MAX  # these while not every room asks `fields` and `times` itself,
    Int32,
    Int32 as Int32,
    Int64,
    Int64 as Int64,
    Moment as Moment,
    Position as Position,
    Uuid,
    Uuid as Uuid,
)
from perdure.wire.records import (
    Event,
)
from perdure.wire.times import (
    microseconds as microseconds,
    rfc3339,
    rfc3339 as rfc3339,
)
from perdure.wire.record import (
    DONE as DONE,
    Done as Done,
)

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
