"""The waits of an execution, in words."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from perdure.cli.base.output import say
from perdure.cli.base.render import date_time, subject
from perdure.wire.base.records import OUTCOMES, Kind
from perdure.wire.base.wording import plain
from perdure.wire.insight.explain_waiting import awaited

if TYPE_CHECKING:
    from msgspec import Raw

    from perdure.sdk.clients.client import Client
    from perdure.wire.runs.executions import Row
    from perdure.wire.runs.waits import PendingWait

LINK_SECONDS: Final = 3_600


async def page_link(client: "Client", id: str, key: str) -> str:
    """A signed link, or the page behind the sign-in if the key may not make links."""
    from urllib.parse import quote

    from perdure.sdk.transports.http import HttpTransport
    from perdure.wire.agents.approvals import MakeApprovalLink
    from perdure.wire.base.errors import PerdureError

    assert isinstance(client._transport, HttpTransport)
    try:
        link = await client._transport.call(
            MakeApprovalLink(id, key, name="link of `perdure show`", expires_in_seconds=LINK_SECONDS)
        )
        path = link.path
    except PerdureError:
        path = f"/approve/{quote(id, safe='')}/{quote(key, safe='')}"
    return f"{client._transport.urls[0]}{path}"


def decoded(value: "Raw | None") -> Any:
    return None if value is None else json.loads(bytes(value))


def until(wait: "PendingWait") -> str:
    return f", until {date_time(wait.expires_at_us)}" if wait.expires_at_us is not None else ""


def went_on_with(rows: "Sequence[Row]", at: int) -> str:
    """The outcome that ended a past wait, at row `at` or later."""
    for n in range(at, len(rows)):
        if rows[n].kind is Kind.CLAIMED:
            break
        if rows[n].kind in OUTCOMES:
            return f"went on with {rows[n].kind.value} {subject(rows[n])}".rstrip()
    return ""


def print_waits(id: str, waits: "Sequence[PendingWait]", links: dict[str, str]) -> None:
    if waits:
        say("\nWaits for")
    for wait in waits:
        step = shlex.quote(wait.key)
        data = decoded(wait.data)
        form = data.get("_form") if isinstance(data, dict) else None
        if isinstance(form, dict):
            _print_question(f"{id} {step}", wait, data, form)
        else:
            what = "an answer" if wait.is_question else awaited(wait)
            shown = f", shows {json.dumps(data, ensure_ascii=False)}" if data is not None else ""
            say(plain(f"  {wait.key}: {what}{shown}, since {date_time(wait.opened_at_us)}{until(wait)}"))
            if wait.is_question:
                say(f"    perdure resume {id} {step} --data JSON")
        if wait.key in links:
            say(f"    or on its page: {links[wait.key]}")


def _print_question(place: str, wait: "PendingWait", data: dict[str, Any], form: dict[str, Any]) -> None:
    title = plain(str(form.get("title") or f"{wait.key}: an answer"))
    say(f"  {title}, since {date_time(wait.opened_at_us)}{until(wait)}")
    for line in about(data, form):
        say(f"    {plain(line)}")
    keys = [str(field.get("key")) for field in form.get("fields") or () if isinstance(field, dict)]
    if "approved" in keys:
        say(f"    perdure approve {place} --approve    (or --reject)")
        if "arguments" in keys:
            edited = json.dumps({"arguments": data.get("arguments")}, ensure_ascii=False)
            say(f"    with other arguments: --approve --data {shlex.quote(plain(edited))}")
    else:
        answer = json.dumps(dict.fromkeys(keys, "…"), ensure_ascii=False) if keys else "JSON"
        say(f"    perdure approve {place} --data {shlex.quote(answer)}")


def about(data: dict[str, Any], form: dict[str, Any]) -> Iterator[str]:
    if form.get("description"):
        yield str(form["description"])
    shown = {name: value for name, value in data.items() if name not in _SAID_BY_THE_FORM and not name.startswith("_")}
    for name, value in shown.items():
        yield f"{name}: {json.dumps(value, ensure_ascii=False)}"


_SAID_BY_THE_FORM: Final = frozenset({"tool", "tool_call_id", "question"})
