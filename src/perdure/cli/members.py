"""members: the members of a project, on a running server or in a stopped store."""

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

_PATH: Final = "/api/v1/projects"

Json = dict[str, Any]
EmailArgument = Annotated[str, typer.Argument(metavar="EMAIL", help="The e-mail address of the user.")]


def add_to(app: typer.Typer) -> None:
    members = group("Members of a project (of a server, or a stopped store).")
    command(members, "add")(add)
    command(members, "list")(list_)
    command(members, "remove")(remove)
    command(members, "invitations")(invitations)
    command(members, "withdraw")(withdraw)
    command(members, "password")(password)
    command(members, "ls", hidden=True)(list_)
    command(members, "rm", hidden=True)(remove)
    app.add_typer(members, name="members", rich_help_panel="Operate")


def add(
    email: EmailArgument,
    role: Annotated[str, typer.Option("--role", help="read, write or admin.")] = "read",
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a user a member. If the e-mail has no user yet, show an invitation, this once."""
    import msgspec

    from perdure.wire.access import Role

    if role not in [*Role]:
        raise Refused(f"--role is read, write or admin; got {role!r}.")

    async def online(client: "Client") -> str | None:
        body = msgspec.json.encode({"email": email, "role": role.capitalize()})
        added: Json = msgspec.json.decode(await ask(client, "POST", await _of_project(client, "members"), body))
        invitation: str | None = added["invitation"]
        return invitation

    async def offline(engine: "Engine", project_id: str) -> str | None:
        return (await engine.projects.add_member(project_id, email, Role(role))).invitation

    invitation, where = on_server_or_in_file(url, database, online, offline, make=True)
    if as_json:
        emit({"email": email, "role": role, "invitation": invitation})
    elif invitation is None:
        say(f"{email} is a member with role {role}, {where}.")
    else:
        say(invitation)
        note(f"{email} has not signed up yet. Hand over this token, the `invitation` of POST /api/v1/auth/signup.")
        note(f"It makes them a member with role {role}, once, within a week. Only its hash is stored, {where}.")


def list_(url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """List the members, oldest first."""
    from rich.table import Table
    from rich.text import Text

    members, where = on_server_or_in_file(url, database, _listed, _listed_offline)
    if as_json:
        for member in members:
            emit(member)
        return
    if not members:
        say(f"No members {where}; add one with `perdure members add EMAIL`.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("EMAIL", "NAME", "ROLE"):
        table.add_column(name)
    for member in members:
        user = member["user"]
        table.add_row(Text(user["email"]), Text(user.get("display_name") or ""), member["role"])
    console().print(table)


def remove(
    email: EmailArgument,
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove a member from the project, at once. The last admin stays."""

    async def online(client: "Client") -> None:
        await ask(client, "DELETE", f"{await _of_project(client, 'members')}/{_id_of(email, await _listed(client))}")

    async def offline(engine: "Engine", project_id: str) -> None:
        await engine.projects.remove_member(project_id, _id_of(email, await _listed_offline(engine, project_id)))

    _, where = on_server_or_in_file(url, database, online, offline)
    if as_json:
        emit({"email": email})
    else:
        say(f"{email} is not a member any more, {where}.")


def invitations(url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """List open invitations, by e-mail."""
    from rich.table import Table
    from rich.text import Text

    from perdure.cli.render import local

    async def online(client: "Client") -> list[Json]:
        import msgspec

        found: list[Json] = msgspec.json.decode(await ask(client, "GET", await _of_project(client, "invitations")))
        return found

    async def offline(engine: "Engine", project_id: str) -> list[Json]:
        import msgspec

        from perdure.wire.public_accounts import invitation_response

        return [msgspec.to_builtins(invitation_response(one)) for one in await engine.projects.invitations(project_id)]

    found, where = on_server_or_in_file(url, database, online, offline)
    if as_json:
        for one in found:
            emit(one)
        return
    if not found:
        say(f"No open invitations {where}.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("EMAIL", "ROLE", "EXPIRES"):
        table.add_column(name)
    for one in found:
        table.add_row(Text(one["email"]), one["role"], local(one["expires_at"]))
    console().print(table)


def withdraw(
    email: EmailArgument,
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Withdraw an invitation. Its token does not work any more."""

    async def online(client: "Client") -> None:
        from urllib.parse import quote

        await ask(client, "DELETE", f"{await _of_project(client, 'invitations')}/{quote(email.strip(), safe='')}")

    async def offline(engine: "Engine", project_id: str) -> None:
        await engine.projects.withdraw_invitation(project_id, email)

    _, where = on_server_or_in_file(url, database, online, offline)
    if as_json:
        emit({"email": email})
    else:
        say(f"The invitation of {email} is withdrawn, {where}.")


def password(email: EmailArgument, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """Give a user a new password, and show it, this once.

    The password holds in all projects of the user, so an admin of one project may not set it. This needs the store
    itself: a stopped file or a database.
    """
    from perdure.cli.store import offline

    async def reset(engine: "Engine", _: str) -> str:
        return await engine.accounts.reset_password(email)

    made: str = offline(database, reset)
    if as_json:
        emit({"email": email, "password": made})
        return
    say(made)
    note(f"Hand it to {email}: they sign in with it, and choose another. All their sessions have ended.")


async def _of_project(client: "Client", what: str) -> str:
    """The path of `what` in the key's project."""
    import msgspec

    (project,) = msgspec.json.decode(await ask(client, "GET", _PATH))["projects"]
    return f"{_PATH}/{project['id']}/{what}"


async def _listed(client: "Client") -> list[Json]:
    import msgspec

    found: list[Json] = msgspec.json.decode(await ask(client, "GET", await _of_project(client, "members")))
    return found


async def _listed_offline(engine: "Engine", project_id: str) -> list[Json]:
    import msgspec

    from perdure.wire.public_accounts import member_response

    return [msgspec.to_builtins(member_response(one)) for one in await engine.projects.members(project_id)]


def _id_of(email: str, members: list[Json]) -> str:
    for member in members:
        if member["user"]["email"] == email.strip().lower():
            id: str = member["user_id"]
            return id
    raise Refused(f"{email} is not a member; `perdure members list` shows all members.")
