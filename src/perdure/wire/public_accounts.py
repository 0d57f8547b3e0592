"""The API's shapes of sign-in, projects and members, with the contract's names (see `wire/public.py`)."""

from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType

from perdure.wire.access import Role
from perdure.wire.accounts import Invitation, Member, Project, User, masked
from perdure.wire.public import Time, Uuid, rfc3339
from perdure.wire.requests import Request

RoleName = Literal["Admin", "Write", "Read"]

_ROLE_NAMES: Final[dict[Role, RoleName]] = {Role.ADMIN: "Admin", Role.WRITE: "Write", Role.READ: "Read"}
_ROLES: Final = {name: role for role, name in _ROLE_NAMES.items()}


def role_of(name: RoleName) -> Role:
    """The role that the API calls by this name."""
    return _ROLES[name]


# --- signing in ----------------------------------------------------------------------------------------------------


class SignUpRequest(Struct, frozen=True):
    """Create a user. The password has at least 8 characters."""

    first_name: str
    last_name: str
    email: str
    password: str
    invitation: str | None = None
    """The token that a project's admin got for this e-mail. It makes you a member, and is required if sign-up is
    closed."""


class SignInRequest(Struct, frozen=True):
    """E-mail and password of a user."""

    email: str
    password: str


class UpdateMeRequest(Struct, frozen=True):
    """Your names; a missing or null field stays."""

    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None


class ChangePasswordRequest(Request, frozen=True):
    """The current password and the new one."""

    current_password: str
    new_password: str


class UserOut(Struct, frozen=True):
    """A user as they see themselves."""

    id: str
    email: str
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    auth_provider: str | None = None
    """How they sign in: `password`."""
    external_id: str | None = None
    """Their id at another provider; always null today."""


def user_out(user: User) -> UserOut:
    return UserOut(user.id, user.email, user.first_name, user.last_name, user.display_name, "password")


class AuthResponse(Struct, frozen=True):
    """Signed in: the response sets the session's cookie."""

    message: str
    user: UserOut


# --- projects ------------------------------------------------------------------------------------------------------


class CreateProjectRequest(Struct, frozen=True):
    """A project to make."""

    name: str
    description: str | None = None


class ChangeProjectRequest(Request, frozen=True):
    """Changes to a project; a missing or null field stays. An empty description removes it."""

    name: str | None = None
    description: str | None = None


class ProjectResponse(Struct, frozen=True):
    """One project."""

    id: Uuid
    name: str
    created_at: Time
    updated_at: Time
    description: str | UnsetType | None = UNSET
    """Missing if the project has no description."""


def project_response(project: Project) -> ProjectResponse:
    p = project
    return ProjectResponse(
        p.id, p.name, rfc3339(p.created_at_us), rfc3339(p.updated_at_us), p.description if p.description else UNSET
    )


class ProjectsResponse(Struct, frozen=True):
    """The caller's projects, newest first."""

    projects: list[ProjectResponse]


# --- members -------------------------------------------------------------------------------------------------------


class UserInfo(Struct, frozen=True):
    """A user as other members see them; missing names are left out."""

    id: str
    email: str
    first_name: str | UnsetType | None = UNSET
    last_name: str | UnsetType | None = UNSET
    display_name: str | UnsetType | None = UNSET


class ProjectMemberResponse(Struct, frozen=True):
    """A user's place in a project."""

    id: str
    user_id: str
    role: str
    """`Admin`, `Write` or `Read`."""
    created_at: Time
    updated_at: Time
    user: UserInfo | None = None


def member_response(member: Member, *, whole: bool = True) -> ProjectMemberResponse:
    """A member as the API shows them; `whole`: with their e-mail."""
    u = member.user
    info = UserInfo(
        u.id,
        u.email if whole else masked(u.email),
        u.first_name or UNSET,
        u.last_name or UNSET,
        u.display_name or UNSET,
    )
    return ProjectMemberResponse(
        member.id,
        u.id,
        _ROLE_NAMES[member.role],
        rfc3339(member.created_at_us),
        rfc3339(member.updated_at_us),
        info,
    )


class AddMemberRequest(Request, frozen=True):
    """The new member's e-mail and role."""

    email: str
    role: RoleName


class AddMemberResponse(Struct, frozen=True):
    """A user becomes a member at once. An e-mail without a user gets an invitation instead."""

    member: ProjectMemberResponse | None = None
    invitation: str | None = None
    """A token for that person, who signs up with it. It is shown here and never again."""
    expires_at: Time | None = None
    """Of the invitation."""


class InvitationResponse(Struct, frozen=True):
    """An invitation that can still be used. Its token is not kept."""

    email: str
    role: str
    """`Admin`, `Write` or `Read`: the invited person's future role."""
    expires_at: Time


def invitation_response(invitation: Invitation) -> InvitationResponse:
    return InvitationResponse(invitation.email, _ROLE_NAMES[invitation.role], rfc3339(invitation.expires_at_us))


class ChangeMemberRequest(Request, frozen=True):
    """The member's new role."""

    role: RoleName
