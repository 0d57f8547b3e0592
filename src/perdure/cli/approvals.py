"""Questions of suspended steps."""

import json
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from perdure.cli.common import JsonFlag, Refused, UrlOption, ask, command, console, emit, parse_json, say, with_client
from perdure.cli.send import QuestionOption
from perdure.cli.waits import about, decoded

if TYPE_CHECKING:
    from perdure.sdk.client import Client


def add_to(app: typer.Typer) -> None:
    command(app, "approvals", rich_help_panel="Look")(approvals)
    command(app, "approve", rich_help_panel="Run")(approve)


def approvals(
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=1_000)] = 100,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List questions that wait for an answer, oldest first."""
    from rich.table import Table
    from rich.text import Text

    from perdure.cli.render import date_time, plain
    from perdure.wire.approvals import ListApprovals

    found = with_client(url, lambda client: client._transport.call(ListApprovals(limit=limit))).approvals
    if as_json:
        for one in found:
            emit(one)
        return
    if not found:
        say("Nothing waits for an answer.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "STEP", "WORKFLOW", "ASKED", "UNTIL", "ASKS"):
        table.add_column(name, no_wrap=name in ("ID", "ASKED", "UNTIL"), overflow="fold")
    for one in found:
        shown = asked_words(decoded(one.data))
        table.add_row(
            one.execution_id,
            Text(one.step_key),
            Text(one.workflow_id),
            date_time(one.asked_at_us),
            date_time(one.expires_at_us),
            Text(plain(shown if len(shown) <= 80 else shown[:79] + "…")),
        )
    console().print(table)


def asked_words(data: Any) -> str:
    """
    >>> asked_words({"arguments": {"euros": 3}, "_form": {"title": "Allow charge?"}, "_source": "agent"})
    'Allow charge? arguments: {"euros": 3}'
    >>> asked_words({"amount": 120})
    '{"amount": 120}'
    """
    form = data.get("_form") if isinstance(data, dict) else None
    if not isinstance(form, dict):
        return json.dumps(data, ensure_ascii=False)
    return " ".join([str(form.get("title") or "An answer is wanted:"), *about(data, form)])


def approve(
    id: Annotated[str, typer.Argument(metavar="ID", help="The execution that asks, or its root.")],
    step: Annotated[str, typer.Argument(metavar="STEP", help="The suspended step, as `perdure approvals` shows it.")],
    yes: Annotated[bool, typer.Option("--approve", help='Answer {"approved": true}.')] = False,
    no: Annotated[bool, typer.Option("--reject", help='Answer {"approved": false}.')] = False,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="The answer itself: JSON, @FILE, or -. With --approve: more fields."),
    ] = None,
    feedback: Annotated[str | None, typer.Option("--feedback", help="A comment on the answer.")] = None,
    question: QuestionOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Answer the question of a suspended step. The first answer stands; its author is kept."""
    import msgspec

    if yes and no:
        raise Refused("Say --approve or --reject, not both.")
    answer = _answer(yes if yes or no else None, data, feedback)
    body = msgspec.json.encode({"data": msgspec.Raw(answer), "question": question})
    path = f"/api/v1/approvals/{quote(id, safe='')}/{quote(step, safe='')}"

    async def work(client: "Client") -> dict[str, Any]:
        said: dict[str, Any] = msgspec.json.decode(await ask(client, "POST", f"{path}/submit", body))
        return said

    said = with_client(url, work)
    if as_json:
        emit(said)
    else:
        say(f"{id} goes on with the answer to {step!r}, given by {said['answered_by']}.")


def _answer(approved: bool | None, data: str | None, feedback: str | None) -> bytes:
    """Raises `Refused`."""
    if approved is None and data is None:
        raise Refused("Say what the answer is: --approve, --reject, or --data JSON.")
    given = None if data is None else parse_json(data, "--data")
    if approved is None and feedback is None:
        assert given is not None
        return given
    fields = {} if given is None else json.loads(given)
    if not isinstance(fields, dict):
        raise Refused("With --approve, --reject or --feedback, --data must be an object.")
    if approved is not None:
        fields["approved"] = approved
    if feedback is not None:
        fields["feedback"] = feedback
    return json.dumps(fields).encode()
