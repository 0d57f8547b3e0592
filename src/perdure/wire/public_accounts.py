"""The public API's shapes of sign-in, projects and members, with the contract's names (see `wire/public.py`)."""

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
    """Become a user. The password has at least 8 characters."""

    first_name: str
    last_name: str
    email: str
    password: str
    invitation: str | None = None
    """The token that an admin of a project was given for this e-mail: it makes you a member, and is needed where
    sign-up is closed."""


class SignInRequest(Struct, frozen=True):
    """Who you are."""

    email: str
    password: str


class UpdateMeRequest(Struct, frozen=True):
    """My names; what is left out, or null, stays."""

    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None


class ChangePasswordRequest(Request, frozen=True):
    """The password in use, and the one to use from now on."""

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
    """Their id at another provider; null, as there is none."""


def user_out(user: User) -> UserOut:
    """A user as the API shows them to themselves."""
    return UserOut(user.id, user.email, user.first_name, user.last_name, user.display_name, "password")


class MessageResponse(Struct, frozen=True):
    """That it is done."""

    message: str


class AuthResponse(Struct, frozen=True):
    """Signed in: the session's cookie came with it."""

    message: str
    user: UserOut


# --- projects ------------------------------------------------------------------------------------------------------


class CreateProjectRequest(Struct, frozen=True):
    """A project to make."""

    name: str
    description: str | None = None


class ChangeProjectRequest(Request, frozen=True):
    """What to change of a project; what is left out, or null, stays. An empty description takes it away."""

    name: str | None = None
    description: str | None = None


class ProjectResponse(Struct, frozen=True):
    """One project."""

    id: Uuid
    name: str
    created_at: Time
    updated_at: Time
    description: str | UnsetType | None = UNSET
    """Left out when there is none."""


def project_response(project: Project) -> ProjectResponse:
    """A project as the API shows it."""
    p = project
    return ProjectResponse(
        p.id, p.name, rfc3339(p.created_at_us), rfc3339(p.updated_at_us), p.description if p.description else UNSET
    )


class ProjectsResponse(Struct, frozen=True):
    """The caller's projects, newest first."""

    projects: list[ProjectResponse]


# --- members -------------------------------------------------------------------------------------------------------


class UserInfo(Struct, frozen=True):
    """A user as other members see them; names that they did not give are left out."""

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
    """Who is to be a member, and what they may do."""

    email: str
    role: RoleName


class AddMemberResponse(Struct, frozen=True):
    """A user is a member at once. For an e-mail that nobody has signed up with there is an invitation instead."""

    member: ProjectMemberResponse | None = None
    invitation: str | None = None
    """A token to hand to that person, who signs up with it; shown here and never again."""
    expires_at: Time | None = None
    """Of the invitation."""


class InvitationResponse(Struct, frozen=True):
    """An invitation that can still be used. Its token is not kept."""

    email: str
    role: str
    """`Admin`, `Write` or `Read`: what they will be."""
    expires_at: Time


def invitation_response(invitation: Invitation) -> InvitationResponse:
    """An invitation as the API shows it."""
    return InvitationResponse(invitation.email, _ROLE_NAMES[invitation.role], rfc3339(invitation.expires_at_us))


class ChangeMemberRequest(Request, frozen=True):
    """What a member may do from now on."""

    role: RoleName
