"""Health, readiness, metrics, and the API's documentation."""

import base64
import hashlib
from typing import Final

from msgspec import Struct

from perdure.server.http import docs
from perdure.server.http.problems import Reply, text_reply
from perdure.server.http.routing import RouteCall, Routes
from perdure.server.telemetry import metrics
from perdure.wire.base.access import Role, check_role
from perdure.wire.base.errors import Unavailable

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(docs.STYLE.encode()).digest()).decode()
_PAGE_HEADERS: Final = (
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"referrer-policy", b"no-referrer"),
)

routes = Routes("Operations")


class HealthResponse(Struct, frozen=True):
    """Always `healthy`: the process answers, and the store takes writes."""

    status: str
    loop_lag_seconds: float = 0.0
    """The event loop's largest delay in the last ten seconds."""


class ReadyResponse(Struct, frozen=True):
    status: str


@routes.get("/health", role=None, contract=True)
async def health(call: RouteCall) -> HealthResponse:
    """Liveness, and how late the event loop runs.

    503 while the store cannot write, which the server checks every 10 seconds.
    """
    health = call.services.health
    if health.problem is not None:
        raise Unavailable(health.problem.message)
    return HealthResponse("healthy", round(health.lag_seconds, 3))


@routes.get("/ready", role=None)
async def ready(call: RouteCall) -> ReadyResponse:
    """Readiness: the database takes writes, and the server takes requests."""
    if call.services.drain.closing:
        raise Unavailable("The server is going away.")
    await call.services.health.check()
    return ReadyResponse("ready")


@routes.get("/metrics", role=None, media_type=metrics.CONTENT_TYPE)
async def show_metrics(call: RouteCall) -> Reply:
    """Prometheus metrics of the key's project; with a key of the default project, of the process, too.

    Without a key, of all projects, if the setting `metrics_open` allows it.
    """
    project_id: str | None = None
    if not call.settings.metrics_open:
        named = call.header(b"x-project-id")
        principal = await call.services.gate.principal(call.headers, call.address, named)
        check_role(principal, Role.READ)
        project_id = principal.project_id
    services = call.services
    page = await metrics.exposition(
        call.engine,
        project_id,
        services.health,
        services.slots.total,
        services.connections(),
        process=project_id in (None, services.default_project_id),
    )
    return text_reply(page, metrics.CONTENT_TYPE)


@routes.get("/openapi.json", role=None, media_type="application/json")
async def openapi_document(call: RouteCall) -> Reply:
    """This API as an OpenAPI 3.1 document."""
    return call.services.openapi_json().reply(call.headers)


@routes.get("/api-docs/openapi.json", role=None, media_type="application/json")
async def openapi_document_of_contract(call: RouteCall) -> Reply:
    """The same document, at the address used by existing clients."""
    return call.services.openapi_json().reply(call.headers)


@routes.get("/docs", role=None, media_type="text/html")
async def docs_page(call: RouteCall) -> Reply:
    """This API as a page to read."""
    return call.services.docs_html().reply(call.headers, _PAGE_HEADERS)
