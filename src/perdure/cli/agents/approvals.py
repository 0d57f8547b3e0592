"""Questions of suspended steps."""

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from perdure.cli.base.commands import Refused, add_commands, add_group
from perdure.cli.base.connect import ask, call, with_client
from perdure.cli.base.options import JsonFlag, UrlOption, parse_json
from perdure.cli.base.output import print_list, print_result
from perdure.cli.runs.send import QuestionOption

if TYPE_CHECKING:
    from perdure.sdk.clients.client import Client


State = Literal["open", "answered", "expired"]


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Look", approvals)
    add_commands(app, "Run", approve)
    help = "Links to questions: who made them, and what they did."
    add_group(app, "Operate", "links", help, *(list_, revoke), others={"ls": list_, "rm": revoke})


def approvals(
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=1_000)] = 100,
    state: Annotated[
        State, typer.Option("--state", help="With answered or expired: questions that ended so, newest first.")
    ] = "open",
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List open questions, oldest first."""
    from perdure.cli.base.render import cut, date_time
    from perdure.cli.runs.waits import decoded
    from perdure.wire.agents.approvals import ListApprovals, ListedState

    found = call(url, ListApprovals(state=ListedState(state), limit=limit)).items
    if state == "answered":
        print_list(
            as_json,
            found,
            ("ID", "STEP", "WORKFLOW", "ANSWERED", "BY", "QUESTION", "ANSWER"),
            lambda one: (
                one.execution_id,
                one.step_key,
                one.workflow_id,
                date_time(one.answered_at_us),
                one.answered_by or "",
                cut(asked_words(decoded(one.data)), 60),
                cut(json.dumps(decoded(one.answer), ensure_ascii=False), 60),
            ),
            empty="No question was answered.",
            whole=("ID", "STEP", "ANSWERED"),
        )
        return
    print_list(
        as_json,
        found,
        ("ID", "STEP", "WORKFLOW", "ASKED", "UNTIL", "ASKS"),
        lambda one: (
            one.execution_id,
            one.step_key,
            one.workflow_id,
            date_time(one.asked_at_us),
            date_time(one.expires_at_us),
            cut(asked_words(decoded(one.data)), 80),
        ),
        empty="Nothing waits for an answer." if state == "open" else "No question expired.",
        whole=("ID", "STEP", "ASKED", "UNTIL"),
    )


def asked_words(data: Any) -> str:
    """
    >>> asked_words({"arguments": {"euros": 3}, "_form": {"title": "Allow charge?"}, "_source": "agent"})
    'Allow charge? arguments: {"euros": 3}'
    >>> asked_words({"amount": 120})
    '{"amount": 120}'
    """
    from perdure.cli.runs.waits import about

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
    """Answer the question of a suspended step.

    The first answer counts; the journal keeps its author.
    """
    import msgspec

    if yes and no:
        raise Refused("Say --approve or --reject, not both.")
    answer = _answer_json(yes if yes or no else None, data, feedback)
    body = msgspec.json.encode({"data": msgspec.Raw(answer), "question": question})
    path = f"/api/v1/approvals/{quote(id, safe='')}/{quote(step, safe='')}"

    async def work(client: "Client") -> dict[str, Any]:
        if feedback is not None:
            asked = json.loads(await ask(client, "GET", path))
            if not _takes_feedback(asked.get("answer_schema")):
                raise Refused(
                    f"The answer to {step!r} has no field for --feedback, so nothing was answered. Leave it out."
                )
        said: dict[str, Any] = msgspec.json.decode(await ask(client, "POST", f"{path}/submit", body))
        return said

    said = with_client(url, work)
    print_result(as_json, said, f"{id} goes on with the answer to {step!r}, given by {said['answered_by']}.")


def list_(
    limit: Annotated[int, typer.Option("--limit", "-n", help="At most this many.", min=1, max=1_000)] = 100,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """List open links, newest first."""
    from perdure.cli.base.render import date_time
    from perdure.wire.agents.approvals import ListApprovalLinks

    print_list(
        as_json,
        call(url, ListApprovalLinks(limit=limit)).items,
        ("LINK", "ID", "STEP", "FOR", "MADE BY", "UNTIL", "USED"),
        lambda one: (
            one.id,
            one.execution_id,
            one.step_key,
            one.name,
            one.made_by,
            date_time(one.expires_at_us),
            date_time(one.used_at_us),
        ),
        empty="No links are open.",
        whole=("LINK", "ID", "UNTIL"),
    )


def revoke(
    link: Annotated[str, typer.Argument(metavar="LINK", help="Its id, as `perdure links list` shows it.")],
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """End a link at once."""
    from perdure.wire.agents.approvals import RevokeApprovalLink

    call(url, RevokeApprovalLink(link))
    print_result(as_json, {"id": link}, f"Link {link} is revoked.")


def _takes_feedback(schema: Any) -> bool:
    if isinstance(schema, dict) and "$ref" in schema:
        schema = schema.get("$defs", {}).get(schema["$ref"].rpartition("/")[2])
    fields = schema.get("properties") if isinstance(schema, dict) else None
    return fields is None or "feedback" in fields or bool(schema.get("additionalProperties"))


def _answer_json(approved: bool | None, data: str | None, feedback: str | None) -> bytes:
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
