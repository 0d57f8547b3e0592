"""API keys of a project."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.common import DatabaseOption, JsonFlag, Refused, UrlOption, command, console, emit, group, note, say
from perdure.cli.server_or_file import on_server_or_in_file

if TYPE_CHECKING:
    from perdure.sdk.transport import Transport
    from perdure.wire.keys import NewApiKey


def add_to(app: typer.Typer) -> None:
    keys = group("Make, list and delete API keys (of a server, or a stopped store).")
    command(keys, "create")(create)
    command(keys, "list")(list_)
    command(keys, "delete")(delete)
    command(keys, "ls", hidden=True)(list_)
    command(keys, "rm", hidden=True)(delete)
    app.add_typer(keys, name="keys", rich_help_panel="Operate")


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A unique name for the key.")],
    role: Annotated[str, typer.Option("--role", help="read, write or admin.")] = "write",
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a key and show it, this once."""
    from perdure.wire.access import Role
    from perdure.wire.keys import CreateApiKey, ListApiKeys

    if role not in [*Role]:
        raise Refused(f"--role is read, write or admin; got {role!r}.")

    async def work(transport: "Transport") -> "tuple[str, NewApiKey]":
        project_id = (await transport.call(ListApiKeys())).project_id
        return project_id, await transport.call(CreateApiKey(name=name, project_id=project_id, role=Role(role)))

    (project_id, made), where = on_server_or_in_file(url, database, work, make=True)
    if as_json:
        emit({"id": made.id, "api_key": made.key, "project_id": project_id, "name": name, "role": role})
        return
    say(made.key)
    note(f"Keep it: only its hash is stored. Role {role}, project {project_id}, {where}.")


def list_(url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """List the keys, newest first."""
    from rich.table import Table
    from rich.text import Text

    from perdure.cli.render import date_time
    from perdure.wire.keys import ListApiKeys

    listing, where = on_server_or_in_file(url, database, lambda transport: transport.call(ListApiKeys()))
    keys = listing.keys
    if as_json:
        for key in keys:
            emit(key)
        return
    if not keys:
        say(f"No keys {where}; make one with `perdure keys create NAME`.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("ID", "NAME", "ROLE", "ENDS IN", "MADE", ""):
        table.add_column(name)
    for key in keys:
        made = date_time(key.created_at_us)
        said = "development" if key.development else ""
        table.add_row(key.id, Text(key.name), key.role, f"…{key.last_four_digits}", made, said)
    console().print(table)


def delete(
    id: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `perdure keys list` shows it.")],
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a key. It is refused from then on."""
    from perdure.wire.errors import NotFound
    from perdure.wire.keys import DeleteApiKey

    try:
        _, where = on_server_or_in_file(url, database, lambda transport: transport.call(DeleteApiKey(id)))
    except NotFound:
        raise Refused(f"Key {id!r} does not exist; `perdure keys list` shows all keys.") from None
    if as_json:
        emit({"id": id})
    else:
        say(f"Key {id} is deleted, {where}.")
