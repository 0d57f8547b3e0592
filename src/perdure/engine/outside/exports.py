"""Sends spans of ended executions to the operator's collector, by OTLP over HTTP.

The store assigns executions to servers, so the spans of each go out once (`verbs/outside/exports`). They stay in the
store while the collector is away. Inputs and outputs are private and are not sent.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from perdure.engine.base.addresses import Policy, target
from perdure.engine.base.calls import CallFailed
from perdure.engine.base.core import Core
from perdure.engine.base.outbound import Outbound
from perdure.store.verbs.insight import trace_queries
from perdure.store.verbs.outside import exports
from perdure.wire.base.errors import BadRequest, BadValue
from perdure.wire.base.times import microseconds
from perdure.wire.insight.journal_spans import journal_spans
from perdure.wire.insight.traces import StoredSpan

logger = logging.getLogger("perdure.engine")

BATCH: Final = 100
SPANS_AT_ONCE: Final = 1_000
CLAIM_US: Final = 120_000_000
PAUSE_SECONDS: Final = 2.0
AWAY_SECONDS_MAX: Final = 60.0
PATH: Final = "/v1/traces"
_AGAIN: Final = frozenset({408, 429, 502, 503, 504})


class Exports:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._url, self._headers = destination(core.settings.otlp_endpoint, core.settings.otlp_headers)
        self._outbound: Outbound | None = None
        if self._url is not None:
            # The operator's own host may have any address.
            self._outbound = Outbound(Policy((target(self._url).host,)))
        self._away_seconds = 0.0
        self._begun: set[str] = set()

    @property
    def wanted(self) -> bool:
        return self._url is not None

    async def close(self) -> None:
        if self._outbound is not None:
            await self._outbound.close()

    async def look(self) -> float:
        core = self._core
        more = False
        for project_id in await core.store.read(exports.project_ids()):
            if project_id not in self._begun:
                if not await core.store.read(exports.exporting(project_id=project_id)):
                    await core.store.write(exports.begin_exports(project_id=project_id, now_us=core.clock.now_us()))
                self._begun.add(project_id)
            now_us = core.clock.now_us()
            ids, more_left = await core.store.write(
                exports.claim_exports(project_id=project_id, now_us=now_us, until_us=now_us + CLAIM_US, limit=BATCH)
            )
            more = more or more_left
            if not ids:
                continue
            left = await self._send(project_id, ids)
            if left:
                await core.store.write(
                    exports.release_exports(project_id=project_id, ids=left, now_us=core.clock.now_us())
                )
                self._away_seconds = min(max(2 * self._away_seconds, 1.0), AWAY_SECONDS_MAX)
                return self._away_seconds * random.uniform(0.5, 1.0)
            self._away_seconds = 0.0
        return 0.0 if more else core.spread(PAUSE_SECONDS)

    async def _send(self, project_id: str, ids: Sequence[str]) -> list[str]:
        """Sends all spans of an execution in one request. Returns the ids to try again."""
        store = self._core.store
        spans: list[StoredSpan] = []
        waiting: list[str] = []
        for number, id in enumerate(ids):
            for execution in await store.scan(trace_queries.journal_of(project_id=project_id, execution_id=id)):
                spans += journal_spans(execution)
            waiting.append(id)
            if len(spans) >= SPANS_AT_ONCE or number == len(ids) - 1:
                became = await self._post(spans) if spans else None
                if spans and became is None:
                    return [*waiting, *ids[number + 1 :]]
                await store.write(exports.note_exports(project_id=project_id, ids=waiting))
                if became is not None:  # after the note, so a server that stops now does not send again
                    self._core.stats.count(became, len(spans))
                spans, waiting = [], []
        return []

    async def _post(self, spans: Sequence[StoredSpan]) -> str | None:
        """The result's counter. None: try again."""
        assert self._outbound is not None and self._url is not None
        try:
            answer = await self._outbound.request(
                "POST", self._url, encoded(spans), {"content-type": "application/x-protobuf", **self._headers}
            )
        except CallFailed as error:
            self._complain(f"cannot be reached: {error.message}")
            return None
        if answer.status in _AGAIN:
            self._complain(f"answers {answer.status}")
            return None
        if answer.status // 100 == 2:
            return "spans_exported"
        logger.warning(
            "The collector at %s refused %d spans (%d); they are not sent again.", self._url, len(spans), answer.status
        )
        return "spans_refused"

    def _complain(self, why: str) -> None:
        if not self._away_seconds:
            logger.warning("The collector at %s %s; what has ended is sent when it is back.", self._url, why)


def destination(endpoint: str, headers: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    """The URL (None: no export) and headers. Raises BadRequest."""
    if not endpoint:
        return None, {}
    url = endpoint if endpoint.rstrip("/").endswith(PATH) else endpoint.rstrip("/") + PATH
    try:
        target(url, "Setting otlp_endpoint")
    except BadValue as error:
        raise BadRequest(error.message) from None
    found: dict[str, str] = {}
    for header in headers:
        name, sign, value = header.partition("=")
        if not sign or not name.strip():
            raise BadRequest(f"Setting otlp_headers: must be name=value, got {header!r}.")
        found[name.strip().lower()] = value.strip()
    return url, found


def encoded(spans: Sequence[StoredSpan]) -> bytes:
    # Imported on first use: most servers send no spans.
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
    from opentelemetry.proto.trace.v1.trace_pb2 import Status

    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    name = group.resource.attributes.add()
    name.key, name.value.string_value = "service.name", "perdure"
    scope = group.scope_spans.add()
    scope.scope.name = "perdure"
    for span in spans:
        one = scope.spans.add()
        one.trace_id = bytes.fromhex(span.trace_id)
        one.span_id = bytes.fromhex(span.span_id)
        if span.parent_span_id is not None:
            one.parent_span_id = bytes.fromhex(span.parent_span_id)
        one.name = span.name
        one.kind = ProtoSpan.SPAN_KIND_INTERNAL
        one.start_time_unix_nano = span.started_at_us * 1_000
        one.end_time_unix_nano = (span.started_at_us if span.ended_at_us is None else span.ended_at_us) * 1_000
        for key, value in _object(span.values.attributes).items():
            attribute = one.attributes.add()
            attribute.key = key
            _set(attribute.value, value)
        attribute = one.attributes.add()
        attribute.key, attribute.value.string_value = "perdure.span_type", span.span_type
        for event in _array(span.values.events):
            told = one.events.add()
            told.name = event["name"]
            told.time_unix_nano = microseconds(datetime.fromisoformat(event["timestamp"])) * 1_000
            error = event["attributes"]["error"]
            message = error.get("message") if isinstance(error, dict) else None
            if isinstance(message, str):
                attribute = told.attributes.add()
                attribute.key, attribute.value.string_value = "exception.message", message
        if span.values.error is not None:
            one.status.code = Status.STATUS_CODE_ERROR
            message = _object(span.values.error).get("message")
            one.status.message = message if isinstance(message, str) else ""
    return request.SerializeToString()


def _array(value: msgspec.Raw | None) -> list[Any]:
    found = None if value is None else msgspec.json.decode(bytes(value))
    return found if isinstance(found, list) else []


def _object(value: msgspec.Raw | None) -> dict[str, Any]:
    found = None if value is None else msgspec.json.decode(bytes(value))
    return found if isinstance(found, dict) else {}


def _set(into: Any, value: Any) -> None:
    if isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        into.int_value = value
    elif isinstance(value, float):
        into.double_value = value
    else:
        into.string_value = value if isinstance(value, str) else msgspec.json.encode(value).decode()
