"""keys: create, list and delete API keys, on a running server or in a stopped store."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perdure.cli.common import (
    DatabaseOption,
    JsonFlag,
    Refused,
    UrlOption,
    ask,
    command,
    console,
    emit,
    group,
    note,
    say,
)
from perdure.cli.server_or_file import on_server_or_in_file

if TYPE_CHECKING:
    from perdure.engine.engine import Engine
    from perdure.sdk.client import Client

_PATH: Final = "/api/v1/api-keys"

Json = dict[str, Any]


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
    import msgspec

    from perdure.wire.access import Role

    if role not in [*Role]:
        raise Refused(f"--role is read, write or admin; got {role!r}.")

    async def online(client: "Client") -> Json:
        project_id = (await _listing(client))["project_id"]
        body = msgspec.json.encode({"name": name, "project_id": project_id, "role": role})
        made: Json = msgspec.json.decode(await ask(client, "POST", _PATH, body))
        return {"id": made["id"], "api_key": made["key"], "project_id": project_id}

    async def offline(engine: "Engine", project_id: str) -> Json:
        key, made = await engine.projects.make_key(project_id, name, Role(role))
        return {"id": made.id, "api_key": key, "project_id": project_id}

    made, where = on_server_or_in_file(url, database, online, offline, make=True)
    if as_json:
        emit({**made, "name": name, "role": role})
        return
    say(made["api_key"])
    note(f"Keep it: only its hash is stored. Role {role}, project {made['project_id']}, {where}.")


def list_(url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """List the keys, newest first."""
    from rich.table import Table
    from rich.text import Text

    from perdure.cli.render import local

    async def online(client: "Client") -> list[Json]:
        found: list[Json] = (await _listing(client))["keys"]
        return found

    async def offline(engine: "Engine", project_id: str) -> list[Json]:
        from perdure.wire.public import rfc3339

        return [
            {
                "id": key.id,
                "name": key.name,
                "last_four_digits": key.last_four,
                "created_at": rfc3339(key.created_at_us),
                "last_used_at": None if key.last_used_at_us is None else rfc3339(key.last_used_at_us),
                "role": key.role,
                "development": key.development,
            }
            for key in await engine.projects.keys(project_id)
        ]

    keys, where = on_server_or_in_file(url, database, online, offline)
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
        made = local(key["created_at"])
        said = "development" if key["development"] else ""
        table.add_row(key["id"], Text(key["name"]), key["role"], f"…{key['last_four_digits']}", made, said)
    console().print(table)


def delete(
    id: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `perdure keys list` shows it.")],
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a key. It is refused from then on."""
    from urllib.parse import quote

    from perdure.wire.errors import NotFound

    async def online(client: "Client") -> None:
        await ask(client, "DELETE", f"{_PATH}/{quote(id, safe='')}")

    async def offline(engine: "Engine", project_id: str) -> None:
        await engine.projects.delete_key(project_id, id)

    try:
        _, where = on_server_or_in_file(url, database, online, offline)
    except NotFound:
        raise Refused(f"Key {id!r} does not exist; `perdure keys list` shows all keys.") from None
    if as_json:
        emit({"id": id})
    else:
        say(f"Key {id} is deleted, {where}.")


async def _listing(client: "Client") -> Json:
    import msgspec

    listing: Json = msgspec.json.decode(await ask(client, "GET", _PATH))
    return listing
