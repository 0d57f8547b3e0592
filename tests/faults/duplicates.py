"""What a request that comes once more must be answered: as the first time, as far as that is promised.

- What carries an Idempotency-Key (starts, publishes): the same status and the same body.
- An answer to a question: the same; but one that came early may have been taken since.
- A cancel: the same execution, or the refusal of what has ended.
- A report, item by item: the same rows under the same numbers, and whatever was written since; `lost` once the attempt
  is over, and then for ever.
- A claim: nothing but what it had. A registration: the same, or that it has ended. A beat: once lost, lost.

Refusals are not kept: what was refused may be asked again. A server that is not there at the moment says so (503).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from perdure.wire.base.errors import LeaseLost, NotCancellable


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes


class Twice(NamedTuple):
    """Answers to a request and to a copy. `late`: the copy was sent when the first answer was there."""

    request: bytes
    first: Reply
    again: Reply
    late: bool


class Judge(NamedTuple):
    """The name of a route, and a check that says what is wrong with the answer to a copy (None: nothing)."""

    name: str
    path: re.Pattern[bytes]
    look: Callable[[Twice], str | None]


def judge(twice: Twice) -> tuple[str | None, str | None]:
    """The promise for the request (None: no promise, or not at this time), and how the promise was broken."""
    path = twice.request.partition(b" HTTP/")[0]
    found = next((one for one in JUDGES if one.path.fullmatch(path)), None)
    if found is None or twice.again.status == 503 or twice.first.status >= 500:
        return None, None
    return found.name, found.look(twice)


def _same(twice: Twice) -> str | None:
    if twice.first.status >= 400:
        return None
    return None if twice.again == twice.first else _said(twice)


def _answered(twice: Twice) -> str | None:
    if twice.first.status >= 400 or twice.again.status != twice.first.status:
        return _same(twice)
    first, again = _json(twice.first), _json(twice.again)
    if first.get("state") == "early":
        first["state"] = again.get("state")
    return None if first == again else _said(twice)


def _cancelled(twice: Twice) -> str | None:
    if twice.first.status >= 400:
        return None
    if twice.again.status == NotCancellable.status:
        return None if _json(twice.again)["error_type"] == NotCancellable.code else _said(twice)
    ids = {_json(reply).get("execution_id") for reply in (twice.first, twice.again)}
    return None if twice.again.status == twice.first.status and len(ids) == 1 else _said(twice)


def _registered(twice: Twice) -> str | None:
    """Judge a registration and later messages under the registration: an ended registration stays ended."""
    if _is_over(twice.first):
        return None if _is_over(twice.again) or not twice.late else _said(twice)
    return None if _is_over(twice.again) else _same(twice)


def _claimed(twice: Twice) -> str | None:
    if _is_over(twice.first) or _is_over(twice.again):
        return _registered(twice)
    if twice.first.status != 200 or twice.again.status != 200:
        return _said(twice)
    had, has = ({(one["id"], one["attempt"]) for one in _json(reply)["items"]} for reply in (twice.first, twice.again))
    # A claim that came back empty may be made once more. Of two at a time the later one is answered.
    return _said(twice) if had and twice.late and not has <= had else None


def _beaten(twice: Twice) -> str | None:
    if twice.first.status != 200 or twice.again.status != 200:
        return _said(twice)
    return _said(twice) if twice.late and _json(twice.first)["lost"] and not _json(twice.again)["lost"] else None


def _reported(twice: Twice) -> str | None:
    if _is_over(twice.first) or _is_over(twice.again):
        return _registered(twice)
    if twice.first.status != 200 or twice.again.status != 200:
        return _said(twice)
    items = _json(Reply(0, twice.request.partition(b"\r\n\r\n")[2]))["items"]
    firsts, agains = _json(twice.first)["items"], _json(twice.again)["items"]
    if not len(items) == len(firsts) == len(agains):
        return _said(twice)
    for item, first, again in zip(items, firsts, agains, strict=True):
        if wrong := _item(item, first, again, twice.late):
            return f"{wrong}: {item} was answered with {first}, then with {again}"
    return None


def _item(item: Any, first: Any, again: Any, late: bool) -> str | None:
    if first.get("lost") or again.get("lost"):
        return "what was lost is not" if late and not again.get("lost") else None
    if first.get("problem") or again.get("problem"):
        return "a refusal appeared" if late and not first.get("problem") else None
    if first.get("ended") or again.get("ended"):
        if late and not again.get("ended"):
            return "an end that took effect did not"
        # What ended without this report (a later one, a cancel) is told so to an end of it only.
        return None if "end" in item else "what has no end ended"
    rows, rows_again = ({row["seq"]: row for row in reply.get("rows", ())} for reply in (first, again))
    if any(rows[seq] != rows_again[seq] for seq in rows.keys() & rows_again.keys()):
        return "a row is another one"
    if first.get("more") or again.get("more"):
        return None
    if first.get("accepted", []) != again.get("accepted", []):
        return "the entries have other numbers"
    if any(first.get("accepted", [])) and first["at_us"] != again["at_us"]:
        return "the entries are from another time"
    return "a row is missing" if late and rows.keys() - rows_again.keys() else None


def stale(twice: Twice) -> list[tuple[str, int, str]]:
    """The executions, with attempt and worker, that a copy of a report was told are lost, and the report itself not."""
    if twice.first.status != 200 or twice.again.status != 200:
        return []
    request = _json(Reply(0, twice.request.partition(b"\r\n\r\n")[2]))
    items = zip(request["items"], _json(twice.first)["items"], _json(twice.again)["items"], strict=True)
    return [
        (item["execution_id"], item["attempt"], request["worker_id"])
        for item, first, again in items
        if again.get("lost") and not first.get("lost")
    ]


def _is_over(reply: Reply) -> bool:
    return reply.status == LeaseLost.status and _json(reply).get("error_type") == LeaseLost.code


def _json(reply: Reply) -> Any:
    size, _, rest = reply.body.partition(b"\n")  # the payloads of a claim follow its JSON
    return json.loads(rest[: int(size)] if size.isdigit() else reply.body)


def _said(twice: Twice) -> str:
    return f"{twice.request!r} was answered with {twice.first}, then with {twice.again}"


REPORT = "report"
JUDGES = (
    Judge("start", re.compile(rb"POST /api/v1/executions"), _same),
    Judge("publish", re.compile(rb"POST /api/v1/events/publish"), _same),
    Judge("resume", re.compile(rb"POST /api/v1/executions/[^/]+/resume/[^/]+"), _answered),
    Judge("cancel", re.compile(rb"POST /api/v1/executions/[^/]+/cancel"), _cancelled),
    Judge(REPORT, re.compile(rb"POST /worker/v1/report"), _reported),
    Judge("claim", re.compile(rb"POST /worker/v1/claim"), _claimed),
    Judge("register", re.compile(rb"POST /worker/v1/register"), _registered),
    Judge("drain", re.compile(rb"POST /worker/v1/drain"), _registered),
    Judge("beat", re.compile(rb"POST /worker/v1/beat"), _beaten),
)
