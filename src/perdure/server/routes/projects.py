"""Projects and their members."""

from perdure.server.routes.executions import idempotency
from perdure.server.routing import Call, Routes
from perdure.wire.access import Caller, Role
from perdure.wire.public import rfc3339
from perdure.wire.public_accounts import (
    AddMemberRequest,
    AddMemberResponse,
    ChangeMemberRequest,
    ChangeProjectRequest,
    CreateProjectRequest,
    InvitationResponse,
    ProjectMemberResponse,
    ProjectResponse,
    ProjectsResponse,
    invitation_response,
    member_response,
    project_response,
    role_of,
)

routes = Routes("Projects")


@routes.post("/api/v1/projects", role=None, caller=Caller.USER, contract=True, idempotent=True)
async def create_project(call: Call, body: CreateProjectRequest) -> ProjectResponse:
    """Make a project; the caller becomes its admin.

    This is for users: a key belongs to one project and cannot make another one.
    """
    assert call.user_id is not None
    made = await call.engine.projects.make(call.user_id, body.name, body.description, idempotency=idempotency(call))
    return project_response(made)


@routes.get("/api/v1/projects", caller=Caller.EITHER, contract=True)
async def get_projects(call: Call) -> ProjectsResponse:
    """Projects that the caller belongs to, newest first.

    A key belongs to one project.
    """
    if call.user_id is not None:
        return ProjectsResponse([project_response(one) for one in await call.engine.projects.of_user(call.user_id)])
    return ProjectsResponse([project_response(await call.engine.projects.get(call.project_id))])


@routes.get("/api/v1/projects/{project_id}", contract=True)
async def get_project_by_id(call: Call, project_id: str) -> ProjectResponse:
    """One project."""
    return project_response(await call.engine.projects.get(call.project_id))


@routes.route("PATCH", "/api/v1/projects/{project_id}", role=Role.ADMIN)
async def change_project(call: Call, project_id: str, body: ChangeProjectRequest) -> ProjectResponse:
    """Change a project's name or description."""
    return project_response(await call.engine.projects.change(call.project_id, body.name, body.description))


@routes.get("/api/v1/projects/{project_id}/members", contract=True)
async def get_project_members(call: Call, project_id: str) -> list[ProjectMemberResponse]:
    """Members of a project, oldest first.

    For a key that only reads, e-mails are masked, like `a***@example.com`.
    """
    whole = call.user_id is not None or call.has_role(Role.WRITE)
    return [member_response(one, whole=whole) for one in await call.engine.projects.members(call.project_id)]


@routes.post("/api/v1/projects/{project_id}/members", role=Role.ADMIN, idempotent=True)
async def add_project_member(call: Call, project_id: str, body: AddMemberRequest) -> AddMemberResponse:
    """Make a user a member, or invite a person who is not a user yet.

    A person who signs up with the invitation's token, for this e-mail and within a week, becomes a member. A second
    invitation makes the first token worthless. Only this answer has the token. If the request invited, the same request
    with the same Idempotency-Key is 409 `SECRET_SHOWN_ONCE`.

    The answer shows whether an e-mail has an account. So a project adds at most `auth_failures_max` people in a burst,
    and one more every few seconds.
    """
    if not call.services.added_members.take(call.project_id):
        raise call.services.added_members.refusal()
    added = await call.engine.projects.add_member(
        call.project_id, body.email, role_of(body.role), idempotency=idempotency(call)
    )
    if added.member is not None:
        return AddMemberResponse(member_response(added.member))
    return AddMemberResponse(None, added.invitation, rfc3339(added.expires_at_us))


@routes.get("/api/v1/projects/{project_id}/invitations", role=Role.ADMIN)
async def get_project_invitations(call: Call, project_id: str) -> list[InvitationResponse]:
    """Open invitations, by e-mail, without expired ones."""
    return [invitation_response(one) for one in await call.engine.projects.invitations(call.project_id)]


@routes.delete("/api/v1/projects/{project_id}/invitations/{email}", role=Role.ADMIN)
async def withdraw_project_invitation(call: Call, project_id: str, email: str) -> None:
    """Withdraw an invitation; its token is worthless from now on."""
    await call.engine.projects.withdraw_invitation(call.project_id, email)


@routes.route("PUT", "/api/v1/projects/{project_id}/members/{user_id}", role=Role.ADMIN)
async def change_project_member(
    call: Call, project_id: str, user_id: str, body: ChangeMemberRequest
) -> ProjectMemberResponse:
    """Change a member's role.

    The last admin keeps the role.
    """
    changed = await call.engine.projects.change_member(call.project_id, user_id, role_of(body.role))
    return member_response(changed)


@routes.delete("/api/v1/projects/{project_id}/members/{user_id}", role=Role.ADMIN)
async def remove_project_member(call: Call, project_id: str, user_id: str) -> None:
    """Remove a member from the project at once.

    The last admin cannot be removed. Keys of the project go on working.
    """
    await call.engine.projects.remove_member(call.project_id, user_id)
