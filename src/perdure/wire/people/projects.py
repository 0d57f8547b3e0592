from typing import Annotated, ClassVar, Final

from msgspec import field
from msgspec.structs import replace

from perdure.wire.base.access import Caller, Role
from perdure.wire.base.codec import check_name
from perdure.wire.base.fields import Conversion, Time, Uuid, id_check, in_body, text_check
from perdure.wire.base.operation import Listed, Noun, Operation
from perdure.wire.base.record import Record
from perdure.wire.people.accounts import BODY_BYTES_MAX, Email, User, parse_email

DESCRIPTION_BYTES_MAX: Final = 4_096


def _name(text: str, where: str) -> str:
    name = text.strip()
    check_name(name, where=where)
    return name


ProjectId = Annotated[str, id_check("project")]
UserId = Annotated[str, id_check("user")]
ProjectName = Annotated[str, in_body(_name)]
Description = Annotated[str, in_body(text_check(DESCRIPTION_BYTES_MAX))]
MemberRole = Annotated[Role, Conversion.ROLE]
"""The JSON is `Admin`, `Write` or `Read`."""


def masked(email: str) -> str:
    """Only the first character and the domain.

    >>> masked("ann@example.com")
    'a***@example.com'
    """
    return f"{email[0]}***@{email.rpartition('@')[2]}"


class Project(Record, frozen=True, kw_only=True, omit_defaults=True):
    shown_as: ClassVar[str] = "ProjectResponse"

    id: Uuid
    name: str
    created_at_us: Time = field(name="created_at")
    updated_at_us: Time = field(name="updated_at")
    description: str | None = None
    """Missing if the project has no description."""


class Member(Record, frozen=True, kw_only=True):
    shown_as: ClassVar[str] = "ProjectMemberResponse"

    id: str
    user_id: str
    role: MemberRole
    created_at_us: Time = field(name="created_at")
    updated_at_us: Time = field(name="updated_at")
    user: User | None = None

    def with_masked_email(self) -> "Member":
        return replace(self, user=self.user and replace(self.user, email=masked(self.user.email)))


class AddedMember(Record, frozen=True):
    """An invitation. The person becomes a member by accepting."""

    shown_as: ClassVar[str] = "AddMemberResponse"

    member: Member | None = None
    """Null. Releases before made users members at once."""
    invitation: str | None = None
    """The token, shown here and never again."""
    expires_at_us: Time | None = field(default=None, name="expires_at")
    """When the invitation expires."""
    path: str | None = None
    """The path of the page to accept the invitation, on the server's address. The path holds the token."""


class Invitation(Record, frozen=True):
    shown_as: ClassVar[str] = "InvitationResponse"

    email: str
    role: MemberRole
    expires_at_us: Time = field(name="expires_at")


projects: Final = Noun("Projects")


@projects.post("/api/v1/projects", role=None, contract=True, idempotent=True)
class CreateProject(Operation[Project], frozen=True):
    """Make a project with the caller as admin.

    Only for users: a key belongs to one project.
    """

    name: ProjectName
    description: Description | None = None


@projects.get("/api/v1/projects", caller=Caller.EITHER, contract=True, under="projects", reply="ProjectsResponse")
class GetProjects(Operation[Listed[Project]], frozen=True):
    """The caller's projects, newest first."""


@projects.get("/api/v1/projects/{project_id}", contract=True)
class GetProjectById(Operation[Project], frozen=True):
    """A project."""

    project_id: ProjectId


@projects.patch("/api/v1/projects/{project_id}", role=Role.ADMIN)
class ChangeProject(Operation[Project], frozen=True):
    """Change a project's name or description.

    A missing or null field stays. An empty description removes it.
    """

    project_id: ProjectId
    name: ProjectName | None = None
    description: Description | None = None


@projects.get("/api/v1/projects/{project_id}/members", contract=True)
class GetProjectMembers(Operation[Listed[Member]], frozen=True):
    """Members of a project, oldest first.

    Read-only keys see masked e-mails, like `a***@example.com`.
    """

    project_id: ProjectId


@projects.post("/api/v1/projects/{project_id}/members", role=Role.ADMIN, idempotent=True, body="AddMemberRequest")
class AddProjectMember(Operation[AddedMember], frozen=True):
    """Invite a person.

    An e-mail proves nothing, so no account gets rights by an e-mail. The holder of the token becomes a member within a
    week, with the signed-in account or by signing up. A second invitation makes the first token worthless. Only the
    first answer has the token; a repeat is 409 `SECRET_SHOWN_ONCE`.
    """

    project_id: ProjectId
    email: Email
    role: MemberRole


@projects.post("/api/v1/auth/invitation", repeated="422: the token was used", role=None, body_bytes_max=BODY_BYTES_MAX)
class AcceptInvitation(Operation[Project], frozen=True):
    """Accept an invitation with the signed-in user's account, whose e-mail may differ from the invited e-mail."""

    invitation: str


@projects.get("/api/v1/projects/{project_id}/invitations", role=Role.ADMIN)
class GetProjectInvitations(Operation[Listed[Invitation]], frozen=True):
    """Open invitations, by e-mail."""

    project_id: ProjectId


@projects.delete("/api/v1/projects/{project_id}/invitations/{email}", role=Role.ADMIN)
class WithdrawProjectInvitation(Operation[None], frozen=True):
    """Withdraw an invitation; the token is worthless from now on."""

    project_id: ProjectId
    email: Annotated[str, parse_email]


@projects.put("/api/v1/projects/{project_id}/members/{user_id}", role=Role.ADMIN, body="ChangeMemberRequest")
class ChangeProjectMember(Operation[Member], frozen=True):
    """Change a member's role.

    The last admin keeps the role.
    """

    project_id: ProjectId
    user_id: UserId
    role: MemberRole


@projects.delete("/api/v1/projects/{project_id}/members/{user_id}", role=Role.ADMIN)
class RemoveProjectMember(Operation[None], frozen=True):
    """Remove a member at once.

    The last admin cannot be removed. Keys of the project go on working.
    """

    project_id: ProjectId
    user_id: UserId
