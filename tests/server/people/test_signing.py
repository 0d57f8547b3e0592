"""The routes of signing secrets."""

from tests.server.serving import Served

from perdure.wire.base.access import Role


async def test_a_secret_is_shown_and_replaced_to_admins(served: Served) -> None:
    first = (await served.client.get("/api/v1/signing-secret")).json()
    assert first["secret"].startswith("whsec_") and first["previous_expires_at"] is None
    assert (await served.client.get("/api/v1/signing-secret")).json() == first
    second = (await served.client.post("/api/v1/signing-secret/rotate", json={"overlap_hours": 1})).json()
    assert second["secret"] != first["secret"] and second["previous_expires_at"] > second["created_at"]
    assert "links" not in second
    refused = await served.client.post("/api/v1/signing-secret/rotate", json={"overlap_hours": 1e9})
    assert refused.status_code == 422 and refused.json()["details"] == {"path": "overlap_hours"}
    writer = {"authorization": f"Bearer {await served.key_of(Role.WRITE)}"}
    assert (await served.client.get("/api/v1/signing-secret", headers=writer)).status_code == 403


async def test_projects_do_not_share_a_secret(served: Served) -> None:
    _, headers = await served.other_project()
    mine = (await served.client.get("/api/v1/signing-secret")).json()
    theirs = (await served.client.get("/api/v1/signing-secret", headers=headers)).json()
    assert mine["secret"] != theirs["secret"]
