"""The waits of an execution, in words."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from perdure.cli.common import ask, say

if TYPE_CHECKING:
    from perdure.sdk.client import Client
    from perdure.wire.executions import Execution, Row

LINK_SECONDS: Final = 3_600
"""How long a link from `show` is valid."""
NOTHING: Final[dict[str, Any]] = {"waits": [], "queued_behind": None}


async def waits_of(client: "Client", id: str) -> dict[str, Any]:
    """The open waits of an execution (`waits`), and the session or limit before it (`queued_behind`)."""
    from urllib.parse import quote

    import msgspec

    found: dict[str, Any] = msgspec.json.decode(
        await ask(client, "GET", f"/api/v1/executions/{quote(id, safe='')}/waits")
    )
    return {**NOTHING, **found}


async def page_link(client: "Client", id: str, key: str) -> str:
    """The page of a question: a signed link, or a page behind the sign-in if the key may not make links."""
    from urllib.parse import quote

    import msgspec

    from perdure.sdk.http import HttpTransport
    from perdure.wire.errors import PerdureError

    assert isinstance(client._transport, HttpTransport)
    step = quote(key, safe="")
    try:
        body = await ask(
            client,
            "POST",
            f"/api/v1/approvals/{quote(id, safe='')}/{step}/links",
            msgspec.json.encode({"name": "link of `perdure show`", "expires_in_seconds": LINK_SECONDS}),
        )
        path: str = msgspec.json.decode(body)["path"]
    except PerdureError:
        path = f"/approve/{quote(id, safe='')}/{step}"
    return f"{client._transport.urls[0]}{path}"


def behind_words(behind: dict[str, Any] | None) -> str:
    """Describe what a queued execution waits for.

    >>> behind_words({"what": "session", "name": "ann", "execution_ids": ["a"], "limit": None})
    "its turn in session 'ann', after a"
    >>> behind_words({"what": "queue", "name": "mail", "execution_ids": ["a", "b"], "limit": 2})
    "room in queue 'mail', which runs 2 at a time: now a, b"
    """
    if behind is None:
        return ""
    ids = ", ".join(behind["execution_ids"])
    if behind["what"] == "session":
        return f"its turn in session {behind['name']!r}" + (f", after {ids}" if ids else "")
    whose = "" if behind["what"] == "queue" else " of each concurrency key"
    more = ", …" if len(behind["execution_ids"]) < behind["limit"] else ""
    return f"room in queue {behind['name']!r}, which runs {behind['limit']}{whose} at a time: now {ids}{more}"


def asks(wait: dict[str, Any]) -> bool:
    """Whether a wait is for an answer. A push worker's question names a topic, because an event answers it. Only
    questions show data."""
    return not wait["topic"] or wait["data"] is not None


def until(wait: dict[str, Any]) -> str:
    """A wait's time-out, as the end of a sentence."""
    from perdure.cli.render import local

    return f", until {local(wait['expires_at'])}" if wait.get("expires_at") else ""


def waiting_words(waits: list[dict[str, Any]], children: "Sequence[Execution]", due: str) -> str:
    """Describe the present waits, on one line.

    >>> wait = {"key": "approve", "topic": None, "data": {"amount": 120}, "expires_at": None}
    >>> waiting_words([wait, {**wait, "key": "paid", "topic": "orders", "data": None}], [], "wakes at 10:00")
    "for an answer to approve; an event of topic 'orders'; wakes at 10:00"
    """
    found = [
        (f"an answer to {wait['key']}" if asks(wait) else f"an event of topic {wait['topic']!r}") + until(wait)
        for wait in waits
    ]
    found += [f"its child {child.id}" for child in children]
    return "; ".join([*([f"for {'; '.join(found)}"] if found else []), *([due] if due else [])])


def went_on_with(rows: "Sequence[Row]", at: int) -> str:
    """Describe the row that ended a past wait, from `at` on."""
    from perdure.cli.render import subject
    from perdure.wire.records import OUTCOMES, Kind

    for n in range(at, len(rows)):
        if rows[n].kind is Kind.CLAIMED:
            break
        if rows[n].kind in OUTCOMES:
            return f"went on with {rows[n].kind.value} {subject(rows[n])}".rstrip()
    return ""


def print_waits(
    id: str, waits: list[dict[str, Any]], links: dict[str, str], children: "Sequence[Execution]" = ()
) -> None:
    from perdure.cli.render import local, plain

    if not waits and not children:
        return
    say("\nWaits for")
    for child in children:
        say(f"  its child {child.id} ({plain(child.workflow_id)}), which is {child.phase.value}")
        say(f"    perdure show {child.id}")
    for wait in waits:
        step = shlex.quote(wait["key"])
        form = wait["data"].get("_form") if isinstance(wait["data"], dict) else None
        if isinstance(form, dict):
            _print_question(f"{id} {step}", wait, form)
        else:
            what = "an answer" if asks(wait) else f"an event of topic {wait['topic']!r}"
            match = f" where {json.dumps(wait['match'])}" if wait["match"] else ""
            shown = f", shows {json.dumps(wait['data'], ensure_ascii=False)}" if wait["data"] is not None else ""
            say(plain(f"  {wait['key']}: {what}{match}{shown}, since {local(wait['opened_at'])}{until(wait)}"))
            if asks(wait):
                say(f"    perdure resume {id} {step} --data JSON")
        if wait["key"] in links:
            say(f"    or on its page: {links[wait['key']]}")


def _print_question(place: str, wait: dict[str, Any], form: dict[str, Any]) -> None:
    from perdure.cli.render import local, plain

    title = plain(str(form.get("title") or "An answer is wanted"))
    say(f"  {wait['key']}: {title}, since {local(wait['opened_at'])}{until(wait)}")
    for line in about(wait["data"], form):
        say(f"    {plain(line)}")
    keys = [str(field.get("key")) for field in form.get("fields") or () if isinstance(field, dict)]
    if "approved" in keys:
        say(f"    perdure approve {place} --approve    (or --reject)")
        if "arguments" in keys:
            edited = json.dumps({"arguments": wait["data"].get("arguments")}, ensure_ascii=False)
            say(f"    with other arguments: --approve --data {shlex.quote(plain(edited))}")
    else:
        answer = json.dumps(dict.fromkeys(keys, "…"), ensure_ascii=False) if keys else "JSON"
        say(f"    perdure approve {place} --data {shlex.quote(answer)}")


def about(data: dict[str, Any], form: dict[str, Any]) -> Iterator[str]:
    """The lines below the title of a question with a form."""
    if form.get("description"):
        yield str(form["description"])
    shown = {name: value for name, value in data.items() if name not in _SAID_BY_THE_FORM and not name.startswith("_")}
    for name, value in shown.items():
        yield f"{name}: {json.dumps(value, ensure_ascii=False)}"


_SAID_BY_THE_FORM: Final = frozenset({"tool", "tool_call_id", "question"})
