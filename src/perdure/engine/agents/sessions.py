"""The service of sessions: agents' memory and runs."""

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.agents import sessions
from perdure.wire.agents.sessions import (
    GetSessionDetail,
    GetSessionMemory,
    GetSessions,
    Memory,
    PutSessionMemory,
    SessionDetail,
    SessionSummary,
    group_runs,
    show_session,
)
from perdure.wire.agents.transcripts import NewVersion
from perdure.wire.base.fields import FIRST_CURSOR
from perdure.wire.base.operation import Listed
from perdure.wire.base.status import STATUS


class Sessions(Service):
    @serves(GetSessions)
    async def list(self, scope: Scope, op: GetSessions) -> Listed[SessionSummary]:
        phases = None if op.status is None else [phase for phase, status in STATUS.items() if status is op.status]
        runs, totals, following = await self.scan(
            sessions.list_agent_runs(
                project_id=scope.project_id,
                agent_id=op.agent_id,
                phases=phases,
                from_us=0 if op.start_time is None else op.start_time,
                to_us=1 << 62 if op.end_time is None else op.end_time,
                before=op.cursor or FIRST_CURSOR,
                limit=op.limit,
                offset=op.offset,
                q=op.q.strip(),
            )
        )
        return Listed(group_runs(runs, totals), following)

    @serves(GetSessionDetail)
    async def get(self, scope: Scope, op: GetSessionDetail) -> SessionDetail:
        return show_session(
            *await self.scan(sessions.get_session(project_id=scope.project_id, execution_id=op.execution_id))
        )

    @serves(GetSessionMemory)
    async def memory(self, scope: Scope, op: GetSessionMemory) -> Memory:
        return await self.read(sessions.get_memory(project_id=scope.project_id, session_id=op.session_id))

    @serves(PutSessionMemory)
    async def remember(self, scope: Scope, op: PutSessionMemory) -> NewVersion:
        """Raises BadRequest, and Conflict if the caller read an older version than the last."""
        version = await self.write(
            sessions.put_memory(
                project_id=scope.project_id,
                session_id=op.session_id,
                summary=op.summary,
                messages=op.messages,
                version=op.read_version(),
                now_us=self.now_us(),
            )
        )
        return NewVersion(version)
