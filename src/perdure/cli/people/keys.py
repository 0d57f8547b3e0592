"""API keys of a project."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import Refused, add_group
from perdure.cli.base.options import DatabaseOption, JsonFlag, RoleOption, UrlOption, check_choice
from perdure.cli.base.output import print_list, print_result
from perdure.cli.base.server_or_file import on_server_or_in_file

if TYPE_CHECKING:
    from perdure.sdk.transports.transport import Transport
    from perdure.wire.people.keys import NewApiKey


def add_to(app: typer.Typer) -> None:
    help = "Make, list and delete API keys (of a server, or a stopped store)."
    add_group(app, "Operate", "keys", help, create, list_, delete, others={"ls": list_, "rm": delete})


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A unique name for the key.")],
    role: RoleOption = "write",
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Create an API key and show the key once."""
    from perdure.wire.base.access import Role
    from perdure.wire.people.keys import CreateApiKey, ListApiKeys

    check_choice("--role", role, [*Role])

    async def work(transport: "Transport") -> "tuple[str, NewApiKey]":
        project_id = (await transport.call(ListApiKeys())).project_id
        return project_id, await transport.call(CreateApiKey(name=name, project_id=project_id, role=Role(role)))

    (project_id, made), where = on_server_or_in_file(url, database, work, make=True)
    shown = {"id": made.id, "api_key": made.key, "project_id": project_id, "name": name, "role": role}
    kept = f"Keep it: only its hash is stored. Role {role}, project {project_id}, {where}."
    print_result(as_json, shown, made.key, kept)


def list_(url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """List the keys, newest first."""
    from perdure.cli.base.render import date_time
    from perdure.wire.people.keys import ListApiKeys

    listing, where = on_server_or_in_file(url, database, lambda transport: transport.call(ListApiKeys()))
    print_list(
        as_json,
        listing.keys,
        ("ID", "NAME", "ROLE", "ENDS IN", "MADE", ""),
        lambda key: (
            key.id,
            key.name,
            key.role,
            f"…{key.last_four_digits}",
            date_time(key.created_at_us),
            "development" if key.development else "",
        ),
        empty=f"No keys {where}; make one with `perdure keys create NAME`.",
    )


def delete(
    id: Annotated[str, typer.Argument(metavar="ID", help="Its id, as `perdure keys list` shows it.")],
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete a key."""
    from perdure.wire.base.errors import NotFound
    from perdure.wire.people.keys import DeleteApiKey

    try:
        _, where = on_server_or_in_file(url, database, lambda transport: transport.call(DeleteApiKey(id)))
    except NotFound:
        raise Refused(f"Key {id!r} does not exist; `perdure keys list` shows all keys.") from None
    print_result(as_json, {"id": id}, f"Key {id} is deleted, {where}.")
