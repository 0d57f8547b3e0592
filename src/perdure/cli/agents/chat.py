"""Chats with an agent in the terminal."""

import json
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perdure.cli.base.commands import add_commands
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import ON_CONFLICT, DeploymentOption, JsonFlag, OnConflict, UrlOption, UserOption

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perdure.sdk.clients.client import Client
    from perdure.sdk.clients.sync import SyncClient, SyncHandle
    from perdure.sdk.workflows.streams import StreamItem
    from perdure.wire.agents.answer_forms import Field, Form

SHOWN_CHARACTERS: Final = 200
_ENDS: Final = ("exit", "quit", "/exit", "/quit")


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Run", chat)


def chat(
    agent: Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")],
    session: Annotated[
        str | None, typer.Option("--session", help="The session to continue. Default: a new one.")
    ] = None,
    on_conflict: Annotated[OnConflict, ON_CONFLICT] = "queue",
    user: UserOption = None,
    deployment: DeploymentOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Talk to an agent: each message is a turn of one session.

    Ctrl-C stops the agent, Ctrl-D (or `exit`) ends the chat. With --json, an input line is a message, or the JSON
    answer to a question. Each output line is an event.
    """
    from uuid import uuid4

    from perdure.sdk.clients.sync import SyncClient
    from perdure.wire.agents.definitions import GetAgentDefinition
    from perdure.wire.base.errors import NotFound, SessionBusy
    from perdure.wire.runs.workflows import GetWorkflow

    async def check(client: "Client") -> None:
        try:
            await client._transport.call(GetAgentDefinition(agent))
        except NotFound:  # a workflow may stream like an agent
            await client._transport.call(GetWorkflow(agent))

    with_client(url, check)
    session_id = session or str(uuid4())
    if sys.stdin.isatty():
        import readline  # noqa: F401  # gives `input` editing and history
    screen = _Lines() if as_json else _Screen()
    screen.begin(session_id)
    with SyncClient(url) as client:
        while True:
            try:
                text = screen.ask(f"{user or 'you'}> ")
            except (EOFError, KeyboardInterrupt):
                screen.line()
                return
            if text.strip().lower() in _ENDS:
                return
            if not text.strip():
                continue
            try:
                handle = client.start(
                    agent, text, session_id=session_id, user_id=user, deployment_id=deployment, on_conflict=on_conflict
                )
            except SessionBusy as error:
                screen.aside(str(error), "red")
                continue
            _follow(client, handle, agent, screen)


def _follow(client: "SyncClient", handle: "SyncHandle[object]", agent: str, screen: "_Screen") -> None:
    from perdure.sdk.base.errors import ExecutionCancelled, ExecutionFailed
    from perdure.wire.base.errors import NotCancellable

    shown = _ShownAsLines(screen, handle.id) if isinstance(screen, _Lines) else _Shown(screen, agent)
    try:
        for item in handle.stream():
            shown.show(item)
            if item.kind == "question" and not item.restarted:
                _ask_user(client, item, screen)
        shown.result(handle.result())
    except KeyboardInterrupt:
        with suppress(NotCancellable):  # just ended
            handle.cancel()
        screen.aside("stopped")
    except ExecutionFailed as error:
        screen.aside(f"{handle.id} failed: {error}", "red")
    except ExecutionCancelled:
        screen.aside(f"{handle.id} was cancelled")


class _Screen:
    def __init__(self) -> None:
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._open = False
        """The last line is unfinished."""

    def begin(self, session_id: str) -> None:
        self.aside(f"session {session_id}; Ctrl-D ends the chat")

    def ask(self, prompt: str) -> str:
        """Raises `EOFError` at the end of the input."""
        self.line()
        return input(prompt)

    def words(self, text: str) -> None:
        from perdure.wire.base.wording import plain

        text = plain(text)
        if text:
            typer.echo(text, nl=False)
            sys.stdout.flush()
            self._open = not text.endswith("\n")

    def aside(self, text: str, colour: str = "bright_black") -> None:
        from perdure.wire.base.wording import plain

        self.line()
        typer.echo(typer.style(plain(text), fg=colour) if self._colours else plain(text))

    def line(self) -> None:
        if self._open:
            typer.echo()
            self._open = False


class _Lines(_Screen):
    """One JSON object per line, without prompts."""

    def begin(self, session_id: str) -> None:
        self.event("session", session_id=session_id)

    def event(self, event: str, **values: object) -> None:
        typer.echo(json.dumps({"event": event, **values}, ensure_ascii=False))
        sys.stdout.flush()

    def ask(self, prompt: str) -> str:
        return input()

    def aside(self, text: str, colour: str = "bright_black") -> None:
        self.event("note", text=text)


class _Shown:
    def __init__(self, screen: _Screen, agent: str) -> None:
        self._screen = screen
        self._agent = agent
        self._speaker: tuple[str, str] | None = None
        self._said = ""
        """The agent's answer so far, without words of children."""

    def show(self, item: "StreamItem") -> None:
        data = item.data if isinstance(item.data, dict) else {}
        words = words_of(item.kind, data)
        if words is not None:
            self._show_words(item, words)
        elif item.restarted:
            return  # repeated by a new try
        elif item.kind == "function_tool_call":
            part = data.get("part") or {}
            self._screen.aside(f"{self._who(item)}{part.get('tool_name')}({_short(_as_json(part.get('args')))})")
            self._speaker = None
        elif item.kind == "function_tool_result":
            part = data.get("part") or data.get("result") or {}
            self._screen.aside(f"{self._who(item)}{part.get('tool_name')} → {_short(part.get('content'))}")
            self._speaker = None
        elif item.kind not in _SILENT:
            self._screen.aside(f"{self._who(item)}{item.kind}: {_short(item.data)}")
            self._speaker = None

    def _show_words(self, item: "StreamItem", words: str) -> None:
        speaker = (item.execution_id, item.key)
        if item.restarted:
            self._screen.aside("(the answer was cut off and starts again)", "yellow")
        if speaker != self._speaker or item.restarted:
            self._screen.line()
            self._screen.words(f"{self._name(item)}> ")
            self._speaker = speaker
            if not item.path:
                self._said = ""
        self._screen.words(words)
        if not item.path:
            self._said += words

    def _name(self, item: "StreamItem") -> str:
        return "/".join(item.path) or self._agent

    def _who(self, item: "StreamItem") -> str:
        return f"  {'/'.join(item.path)}: " if item.path else "  "

    def result(self, result: object) -> None:
        text = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=2)
        if result is not None and text.strip() != self._said.strip():
            self._screen.line()
            self._screen.words(f"{self._agent}> {text}")
        self._screen.line()


class _ShownAsLines(_Shown):
    def __init__(self, screen: _Lines, execution_id: str) -> None:
        super().__init__(screen, "")
        self._lines = screen
        self._id = execution_id

    def show(self, item: "StreamItem") -> None:
        self._lines.event(
            "question" if item.kind == "question" else "item",
            execution_id=item.execution_id,
            path=item.path,
            key=item.key,
            kind=item.kind,
            data=item.data,
            restarted=item.restarted,
        )

    def result(self, result: object) -> None:
        self._lines.event("result", execution_id=self._id, result=result)


_SILENT: Final = (
    *("part_start", "part_delta", "part_end", "final_result", "question"),
    *("output_tool_call", "output_tool_result", "deferred_tool_requests", "deferred_tool_results"),
)
"""Items that show only words. Questions are asked instead."""


def words_of(kind: str, data: dict[str, Any]) -> str | None:
    """The text that an event adds to the agent's answer.

    >>> words_of("part_delta", {"delta": {"part_delta_kind": "text", "content_delta": "lo"}})
    'lo'
    """
    if kind == "part_start":
        part = data.get("part") or {}
        return part.get("content") or None if part.get("part_kind") == "text" else None
    if kind == "part_delta":
        delta = data.get("delta") or {}
        return delta.get("content_delta") or None if delta.get("part_delta_kind") == "text" else None
    return None


def _ask_user(client: "SyncClient", item: "StreamItem", screen: _Screen) -> None:
    """The end of the input leaves the question open."""
    from perdure.wire.base.errors import BadValue, Conflict, PerdureError

    question = item.data if isinstance(item.data, dict) else {}
    asked = question.get("data")
    while True:
        try:
            if isinstance(screen, _Lines):
                answer = _as_json(screen.ask(""))
            else:
                answer = _ask(asked if isinstance(asked, dict) else {"question": asked}, screen)
        except EOFError:
            screen.aside(f"not answered; `perdure approve {item.execution_id} {item.key}` answers it later")
            return
        try:
            client.resume(item.execution_id, str(question.get("step_key") or item.key), answer)
        except Conflict:
            screen.aside("this question has been answered already")
        except BadValue as error:
            screen.aside(f"the answer was refused, answer again: {error.message}", "red")
            continue
        except PerdureError as error:
            screen.aside(f"the answer was refused: {error.message}", "red")
        return


def _ask(asked: dict[str, Any], screen: _Screen) -> object:
    from perdure.cli.runs.waits import about
    from perdure.wire.agents.answer_forms import APPROVED, form_of

    form = form_of(json.dumps(asked).encode())
    fields = {field.key: field for field in form.fields or ()}
    if APPROVED in fields and "arguments" in fields:
        return _decision(asked, form, screen)
    title = form.title or asked.get("question") or "An answer is wanted"
    if "answer" in fields:
        screen.aside(str(title), "cyan")
        options = fields["answer"].options
        for n, option in enumerate(options, 1):
            screen.aside(f"  {n}. {option.label}", "cyan")
        said = screen.ask("answer> ")
        return {"answer": options[int(said) - 1].value if said.isdigit() and 0 < int(said) <= len(options) else said}
    if not fields:
        shown = {name: one for name, one in asked.items() if not name.startswith("_")}
        screen.aside(f"{title}: {_short(shown)}", "cyan")
        return _as_json(screen.ask("answer (JSON or text)> "))
    screen.aside(str(title), "cyan")
    for line in about(asked, asked["_form"]):
        screen.aside(f"  {line}", "cyan")
    if APPROVED not in fields:
        return _entered(fields.values(), screen)
    return _approved([field for field in fields.values() if field.key != APPROVED], screen)


def _approved(fields: "Sequence[Field]", screen: _Screen) -> dict[str, Any]:
    given = {field.key: field.default for field in fields if field.default is not None}
    for field in fields:
        if field.key in given:
            screen.aside(f"  {field.label}: {_short(field.default)}", "cyan")
    while True:
        said = screen.ask("[y]es, [n]o, [e]dit> " if fields else "[y]es, [n]o> ").strip().lower()
        if said in ("y", "yes"):
            needed = [field for field in fields if field.required and field.key not in given]
            return {"approved": True, **given, **_entered(needed, screen)}
        if said in ("n", "no"):
            return {"approved": False}
        if said in ("e", "edit") and fields:
            return {"approved": True, **_entered(fields, screen)}


def _entered(fields: "Iterable[Field]", screen: _Screen) -> dict[str, Any]:
    """Reads an empty line as the default."""
    from perdure.wire.agents.answer_forms import Form, read_answer

    found: dict[str, Any] = {}
    for field in fields:
        if field.description:
            screen.aside(f"  {field.description}", "cyan")
        for n, option in enumerate(field.options, 1):
            screen.aside(f"  {n}. {option.label}", "cyan")
        default = "" if field.default is None else f" [{_short(field.default)}]"
        while True:
            said = screen.ask(f"{field.label}{default}> ").strip()
            if not said and field.default is not None:
                found[field.key] = field.default
                break
            answer, errors = read_answer(Form((field,)), {"f0": _as_sent(field, said)})
            if answer is not None:
                found |= json.loads(answer)
                break
            screen.aside(errors["f0"], "red")
    return found


def _as_sent(field: "Field", said: str) -> list[str]:
    """Options count from 0, as in a browser."""
    if field.options:
        return [str(int(one) - 1) if one.strip().isdecimal() else one for one in said.split(",") if one.strip()]
    if field.kind == "boolean":
        said = {"y": "true", "yes": "true", "n": "false", "no": "false"}.get(said.lower(), said)
    return [said]


def _decision(asked: dict[str, Any], form: "Form", screen: _Screen) -> object:
    for line in (form.description, None if form.context is None else f"because {_short(form.context)}"):
        if line:
            screen.aside(line, "cyan")
    screen.aside(
        f"allow {asked.get('tool') or asked.get('_tool')}({_short(_as_json(asked.get('arguments')))})?", "cyan"
    )
    while True:
        said = screen.ask("[y]es, [n]o, [e]dit> ").strip().lower()
        if said in ("y", "yes"):
            return {"approved": True}
        if said in ("n", "no"):
            why = screen.ask("why not (may be empty)> ").strip()
            return {"approved": False, "feedback": why} if why else {"approved": False}
        if said in ("e", "edit"):
            arguments = _as_json(screen.ask("arguments (a JSON object)> "))
            if isinstance(arguments, dict):
                return {"approved": True, "arguments": arguments}
            screen.aside("that is not a JSON object", "red")


def _as_json(said: object) -> object:
    from perdure.wire.agents.answer_forms import json_or_text

    return json_or_text(said)


def _short(value: object) -> str:
    from perdure.cli.base.render import cut

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        text = ", ".join(f"{name}={json.dumps(one, ensure_ascii=False)}" for name, one in value.items())
    return cut(" ".join(text.split()), SHOWN_CHARACTERS)
