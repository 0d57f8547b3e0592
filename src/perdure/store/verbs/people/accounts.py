"""Users and sessions; projects, members and invitations. Changes of members lock the project's row, so two admins
cannot remove each other at the same time."""

from typing import NamedTuple

import msgspec
from msgspec import Struct

from perdure.store.base.interface import Notify, UserChanged, query, record, records, serves, verb
from perdure.store.base.records import to_values
from perdure.store.verbs.base.idempotency import At, Idempotency, recall, remember
from perdure.wire.base.access import Role
from perdure.wire.base.errors import (
    AlreadyMember,
    BadValue,
    EmailTaken,
    LastAdmin,
    NotFound,
    SecretShownOnce,
    TooManyMembers,
    TooManyProjects,
)
from perdure.wire.base.operation import Listed
from perdure.wire.people.accounts import INVITATION_PATH, User
from perdure.wire.people.projects import (
    ChangeProject,
    ChangeProjectMember,
    GetProjectInvitations,
    GetProjectMembers,
    Invitation,
    Member,
    Project,
    RemoveProjectMember,
    WithdrawProjectInvitation,
)

SESSIONS_MAX = 100
"""Open sessions per user; beyond, the first to expire ends."""
PROJECTS_MAX = 1_000
"""Most projects of a user, memberships included."""
MEMBERS_MAX = 1_000
"""Most members, and most invitations."""


class StoredUser(Struct, frozen=True):
    """A user with the hash. Not a `User`, so that no answer can show the hash."""

    user: User
    password_hash: str


class StoredSession(Struct, frozen=True):
    """`role` is the user's in the requested project; None: not a member."""

    user_id: str
    expires_at_us: int
    role: Role | None


class StoredInvitation(Struct, frozen=True):
    project_id: str
    project: str
    """The project's name."""
    email: str
    role: Role
    expires_at_us: int


class NewSession(NamedTuple):
    token_hash: str
    expires_at_us: int


@verb(locks="user_email=user.email")
async def sign_up(
    *, user: User, password_hash: str, session: NewSession, invitation_hash: str | None, member_id: str, now_us: int
) -> None:
    """Store a new user, signed in. Raises EmailTaken; BadValue for an invalid invitation."""
    invited = None if invitation_hash is None else await _invited(invitation_hash, now_us)
    if not await query("insert_user", user, password_hash=password_hash, now_us=now_us):
        raise _email_taken(user.email)
    await _insert_session(user.id, session, now_us)
    if invited is not None:
        await _join(invited, user.id, invitation_hash, member_id=member_id, now_us=now_us)


@verb(reads=True)
async def check_sign_up(*, email: str, invitation_hash: str | None, now_us: int) -> None:
    """Raises what `sign_up` raises, and BadValue for another e-mail than invited, unless the invited e-mail has an
    account."""
    if invitation_hash is not None:
        invited = await _invited(invitation_hash, now_us)
        if invited.email != email and not await query("find_user", email=invited.email):
            raise _no_invitation()
    if await query("find_user", email=email):
        raise _email_taken(email)


@verb(reads=True)
async def read_invitation(*, token_hash: str, now_us: int) -> StoredInvitation:
    """Raises BadValue."""
    return await _invited(token_hash, now_us)


@verb(locks="")
async def accept_invitation(*, user_id: str, token_hash: str, member_id: str, now_us: int) -> str:
    """The token is the proof; the account may have any e-mail. Returns the project. Raises BadValue, AlreadyMember."""
    invited = await _invited(token_hash, now_us)
    if user_id in await _roles(invited.project_id):
        raise AlreadyMember("You are a member of this project already.")
    await _join(invited, user_id, token_hash, member_id=member_id, now_us=now_us)
    return invited.project_id


async def _join(
    invited: StoredInvitation, user_id: str, token_hash: str | None, *, member_id: str, now_us: int
) -> None:
    project_id = invited.project_id
    if not await query("take_invitation", project_id=project_id, email=invited.email, token_hash=token_hash):
        raise _no_invitation()  # another request took it at the same time
    await query("insert_member", project_id=project_id, user_id=user_id, id=member_id, role=invited.role, now_us=now_us)
    await Notify(UserChanged(user_id))


async def _invited(token_hash: str, now_us: int) -> StoredInvitation:
    found = await record(StoredInvitation, "read_invitation", token_hash=token_hash)
    if found is None or found.expires_at_us <= now_us:
        raise _no_invitation()
    return found


@verb(reads=True)
async def find_user(*, email: str) -> StoredUser | None:
    return await record(StoredUser, "find_user", email=email)


@verb(reads=True)
async def read_user(*, user_id: str) -> StoredUser:
    found = await record(StoredUser, "read_user", user_id=user_id)
    if found is None:
        raise _no_user(user_id)
    return found


@verb(locks="user=user_id")
async def change_user(
    *, user_id: str, first_name: str | None, last_name: str | None, display_name: str | None, now_us: int
) -> User:
    changed = await record(
        User,
        "update_user",
        user_id=user_id,
        first_name=first_name,
        last_name=last_name,
        display_name=display_name,
        now_us=now_us,
    )
    if changed is None:
        raise _no_user(user_id)
    return changed


@verb(locks="user=user_id")
async def change_password(*, user_id: str, password_hash: str, session: NewSession | None, now_us: int) -> None:
    if not await query("update_password", user_id=user_id, password_hash=password_hash, now_us=now_us):
        raise _no_user(user_id)
    await query("delete_other_sessions", user_id=user_id, token_hash="" if session is None else session.token_hash)
    if session is not None:
        await _insert_session(user_id, session, now_us)
    await Notify(UserChanged(user_id))


@verb(locks="user=user_id")
async def open_session(*, user_id: str, session: NewSession, now_us: int) -> None:
    if await query("delete_old_sessions", user_id=user_id, now_us=now_us, kept=SESSIONS_MAX - 1):
        await Notify(UserChanged(user_id))
    await _insert_session(user_id, session, now_us)


@verb(reads=True)
async def read_session(*, token_hash: str, project_id: str) -> StoredSession | None:
    return await record(StoredSession, "read_session", token_hash=token_hash, project_id=project_id)


@verb(locks="session=token_hash")
async def close_session(*, token_hash: str) -> None:
    for (user_id,) in await query("delete_session", token_hash=token_hash):
        await Notify(UserChanged(user_id))


async def _insert_session(user_id: str, session: NewSession, now_us: int) -> None:
    await query("insert_session", user_id=user_id, now_us=now_us, **session._asdict())


@verb(locks="user=user_id")
async def make_project(
    *, project: Project, user_id: str, member_id: str, idempotency: Idempotency | None = None
) -> Project:
    first = await recall(user_id, idempotency)
    if first is not None:
        return Project(**msgspec.json.decode(first))
    if len(await query("projects_of_user", user_id=user_id)) >= PROJECTS_MAX:
        raise TooManyProjects(f"You belong to {PROJECTS_MAX:,} projects, the most there may be; leave some first.")
    now_us = project.created_at_us
    await query("create_project", project)
    await query("insert_member", project_id=project.id, user_id=user_id, id=member_id, role=Role.ADMIN, now_us=now_us)
    # A server may have cached that the user is not a member of this id.
    await Notify(UserChanged(user_id))
    await remember(user_id, idempotency, msgspec.json.encode(to_values(project)), now_us)
    return project


@verb(reads=True)
async def read_project(*, project_id: str) -> Project:
    found = await record(Project, "read_project", project_id=project_id)
    if found is None:
        raise _no_project(project_id)
    return found


@serves(ChangeProject, locks="project=at.project_id")
async def change_project(at: At, op: ChangeProject) -> Project:
    changed = await record(Project, "update_project", at, op)
    if changed is None:
        raise _no_project(at.project_id)
    return changed


@verb(reads=True)
async def projects_of(*, user_id: str) -> list[Project]:
    return await records(Project, "projects_of_user", user_id=user_id)


@serves(GetProjectMembers, reads=True)
async def list_members(at: At, op: GetProjectMembers) -> Listed[Member]:
    """Members know each other's e-mails. A read-only key gets masked e-mails."""
    found = await records(Member, "list_members", at, user_id=None)
    is_whole = at.may(Role.WRITE) or (at.principal is not None and at.principal.user_id is not None)
    return Listed(found if is_whole else [one.with_masked_email() for one in found])


@verb(locks="project=project_id")
async def invite(
    *,
    project_id: str,
    email: str,
    role: Role,
    token_hash: str,
    expires_at_us: int,
    now_us: int,
    idempotency: Idempotency | None = None,
) -> None:
    """Raises NotFound, AlreadyMember, TooManyMembers; SecretShownOnce for a repeated request."""
    if await recall(project_id, idempotency) is not None:
        raise SecretShownOnce(
            f"The first request with this Idempotency-Key invited {email!r}, and only its answer had the token; if "
            "that is lost, invite again with another Idempotency-Key, which makes the first token worthless.",
            {"email": email},
        )
    members = await _roles(project_id)
    [[invited]] = await query("count_invitations", project_id=project_id, now_us=now_us)
    if max(len(members), invited) >= MEMBERS_MAX:
        raise TooManyMembers(f"The project has {MEMBERS_MAX:,} members or invitations, the most there may be.")
    for member in await records(Member, "list_members", project_id=project_id, user_id=None):
        if member.user is not None and member.user.email == email:
            raise AlreadyMember(f"{email!r} is a member already; change the role with PUT …/members/{member.user_id}.")
    await query("delete_old_invitations", project_id=project_id, now_us=now_us)
    invitation = Invitation(email=email, role=role, expires_at_us=expires_at_us)
    await query("upsert_invitation", invitation, project_id=project_id, token_hash=token_hash)
    await remember(project_id, idempotency, msgspec.json.encode(None), now_us)


@serves(ChangeProjectMember, locks="project=at.project_id")
async def change_member(at: At, op: ChangeProjectMember) -> Member:
    roles = await _roles(at.project_id)
    if op.role is not Role.ADMIN:
        _check_admin_is_left(roles, op.user_id)
    if op.user_id not in roles:
        raise _no_member(op.user_id)
    await query("update_member", at, op)
    await Notify(UserChanged(op.user_id))
    [changed] = await records(Member, "list_members", at, op)
    return changed


@serves(RemoveProjectMember, locks="project=at.project_id")
async def remove_member(at: At, op: RemoveProjectMember) -> None:
    roles = await _roles(at.project_id)
    _check_admin_is_left(roles, op.user_id)
    if op.user_id not in roles:
        raise _no_member(op.user_id)
    await query("delete_member", at, op)
    await query("delete_links_of_member", at, op)
    await Notify(UserChanged(op.user_id))


@serves(GetProjectInvitations, reads=True)
async def list_invitations(at: At, op: GetProjectInvitations) -> Listed[Invitation]:
    return Listed(await records(Invitation, "list_invitations", at))


@serves(WithdrawProjectInvitation, locks="project=at.project_id")
async def withdraw_invitation(at: At, op: WithdrawProjectInvitation) -> None:
    await _roles(at.project_id)
    if not await query("delete_invitation", at, op):
        raise NotFound(f"{op.email!r} has no invitation; GET …/invitations lists them.")


async def _roles(project_id: str) -> dict[str, str]:
    """The roles by member. Locks the project. Raises NotFound."""
    if not await query("lock_project", project_id=project_id):
        raise _no_project(project_id)
    return dict(await query("member_roles", project_id=project_id))


def _check_admin_is_left(roles: dict[str, str], user_id: str) -> None:
    admins = [id for id, role in roles.items() if role == Role.ADMIN.value]
    if admins == [user_id]:
        raise LastAdmin("This is the project's only admin; give another member the role first.")


def _no_user(user_id: str) -> NotFound:
    return NotFound(f"User {user_id!r} does not exist.")


def _email_taken(email: str) -> EmailTaken:
    return EmailTaken(f"{email!r} has signed up already; sign in, or use another e-mail.")


def _no_invitation() -> BadValue:
    return BadValue(
        f"{INVITATION_PATH}: is for another e-mail, was used, or has expired; ask for a new one.",
        {"path": INVITATION_PATH},
    )


def _no_project(project_id: str) -> NotFound:
    return NotFound(f"Project {project_id!r} does not exist.")


def _no_member(user_id: str) -> NotFound:
    return NotFound(f"User {user_id!r} is not a member of the project; GET …/members lists them.")
