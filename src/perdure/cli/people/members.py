"""The members of a project."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.base.commands import Refused, add_group
from perdure.cli.base.options import DatabaseOption, JsonFlag, RoleOption, UrlOption, check_choice
from perdure.cli.base.output import print_list, print_result
from perdure.cli.base.server_or_file import offline, on_server_or_in_file

if TYPE_CHECKING:
    from perdure.engine.engine import Engine
    from perdure.sdk.transports.transport import Transport
    from perdure.wire.people.projects import AddedMember, Invitation, Member

EmailArgument = Annotated[str, typer.Argument(metavar="EMAIL", help="The e-mail address of the user.")]


def add_to(app: typer.Typer) -> None:
    help = "Members of a project (of a server, or a stopped store)."
    functions = (add, list_, remove, invitations, withdraw, password)
    add_group(app, "Operate", "members", help, *functions, others={"ls": list_, "rm": remove})


def add(
    email: EmailArgument,
    role: RoleOption = "read",
    url: UrlOption = None,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Invite a person, and show the invitation once."""
    from perdure.wire.base.access import Role
    from perdure.wire.people.projects import AddProjectMember

    check_choice("--role", role, [one for one in Role if one is not Role.WORK])

    async def work(transport: "Transport") -> "AddedMember":
        return await transport.call(
            AddProjectMember(project_id=await _project_id(transport), email=email, role=Role(role))
        )

    added, where = on_server_or_in_file(url, database, work, make=True)
    server = where.removeprefix("on ") if where.startswith("on ") else "https://YOUR-SERVER"
    print_result(
        as_json,
        {"email": email, "role": role, "invitation": added.invitation, "path": added.path},
        added.invitation or "",
        f"Hand this link to {email}, and to no one else: {server}{added.path}",
        f"Its holder becomes a member with role {role}, once, within a week. Only its hash is stored, {where}.",
    )


def list_(url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """List the members, oldest first."""

    def row(one: "Member") -> tuple[str, ...]:
        assert one.user is not None
        return one.user.email, one.user.display_name or "", one.role.capitalize()

    members, where = on_server_or_in_file(url, database, _members)
    print_list(
        as_json,
        members,
        ("EMAIL", "NAME", "ROLE"),
        row,
        empty=f"No members {where}; add one with `perdure members add EMAIL`.",
    )


def remove(
    email: EmailArgument, url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False
) -> None:
    """Remove a member at once; the last admin stays."""
    from perdure.wire.people.projects import RemoveProjectMember

    async def work(transport: "Transport") -> None:
        user_id = _id_of(email, await _members(transport))
        await transport.call(RemoveProjectMember(project_id=await _project_id(transport), user_id=user_id))

    _, where = on_server_or_in_file(url, database, work)
    print_result(as_json, {"email": email}, f"{email} is not a member any more, {where}.")


def invitations(url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """List open invitations, by e-mail."""
    from perdure.cli.base.render import date_time
    from perdure.wire.people.projects import GetProjectInvitations

    async def work(transport: "Transport") -> "list[Invitation]":
        return (await transport.call(GetProjectInvitations(await _project_id(transport)))).items

    found, where = on_server_or_in_file(url, database, work)
    print_list(
        as_json,
        found,
        ("EMAIL", "ROLE", "EXPIRES"),
        lambda one: (one.email, one.role.capitalize(), date_time(one.expires_at_us)),
        empty=f"No open invitations {where}.",
    )


def withdraw(
    email: EmailArgument, url: UrlOption = None, database: DatabaseOption = None, as_json: JsonFlag = False
) -> None:
    """Withdraw an invitation."""
    from perdure.wire.people.projects import WithdrawProjectInvitation

    async def work(transport: "Transport") -> None:
        await transport.call(WithdrawProjectInvitation(project_id=await _project_id(transport), email=email))

    _, where = on_server_or_in_file(url, database, work)
    print_result(as_json, {"email": email}, f"The invitation of {email} is withdrawn, {where}.")


def password(email: EmailArgument, database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """Give a user a new password and show it once.

    The password holds in all projects of the user, so an admin of one project may not set it. The command needs the
    store: a stopped file or a database.
    """

    async def reset(engine: "Engine", _: str) -> str:
        return await engine.accounts.reset_password(email)

    made = offline(database, reset)
    advice = f"Hand it to {email}: they sign in with it, and choose another. All their sessions have ended."
    print_result(as_json, {"email": email, "password": made}, made, advice)


async def _project_id(transport: "Transport") -> str:
    from perdure.wire.people.projects import GetProjects

    [project] = (await transport.call(GetProjects())).items
    return project.id


async def _members(transport: "Transport") -> "list[Member]":
    from perdure.wire.people.projects import GetProjectMembers

    return (await transport.call(GetProjectMembers(await _project_id(transport)))).items


def _id_of(email: str, members: "list[Member]") -> str:
    for member in members:
        if member.user is not None and member.user.email == email.strip().lower():
            return member.user_id
    raise Refused(f"{email} is not a member; `perdure members list` shows all members.")
