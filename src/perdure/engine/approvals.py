"""The service of questions, their answers, and links for people without a key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw, Struct

from perdure.engine.cursors import none_of_ours, read_cursor, write_cursor
from perdure.engine.executions import checked_id, is_uuid
from perdure.store.verbs import approvals
from perdure.wire.approvals import Approval, How, Question, QuestionState
from perdure.wire.codec import KEY_BYTES_MAX, check_json, check_name
from perdure.wire.errors import BadRequest, BadValue, Conflict, Unauthorized
from perdure.wire.status import Phase

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

LIST_MAX: Final = 1_000
LINK_SECONDS: Final = 24 * 3_600
LINK_SECONDS_MAX: Final = 90 * 86_400
_PURPOSE: Final = b"perdure approval link\n"


class Link(Struct, frozen=True, array_like=True):
    """A signed link answers one question until it expires."""

    project_id: str
    execution_id: str
    step_key: str
    question_id: str
    name: str
    """The person whose name the answer gets."""
    expires_at_seconds: int


class Approvals:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(
        self, project_id: str, execution_id: str, step_key: str, question_id: str | None = None
    ) -> tuple[Phase, Question | None]:
        """The question of an execution or descendant under a key, with the execution's phase. `question_id` selects one
        of several. Raises NotFound."""
        return await self._engine.store.read(
            approvals.find_question(
                project_id=project_id,
                execution_id=checked_id(execution_id),
                step_key=step_key,
                question_id=question_id,
                now_us=self._engine.clock.now_us(),
            )
        )

    async def answer(
        self,
        project_id: str,
        execution_id: str,
        step_key: str,
        data: Raw,
        *,
        answered_by: str,
        how: How,
        question_id: str | None = None,
    ) -> Approval:
        """Answer the open question, with `question_id` only that one. Raises NotFound, Conflict, BadValue."""
        check_name(step_key, where="step_key", max_bytes=KEY_BYTES_MAX)
        check_json(bytes(data), where="data")
        return await self._engine.store.write(
            approvals.answer_question(
                project_id=project_id,
                execution_id=checked_id(execution_id),
                step_key=step_key,
                question_id=question_id,
                data=data,
                answered_by=answered_by,
                how=how,
                now_us=self._engine.clock.now_us(),
            )
        )

    async def list(
        self, project_id: str, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Question], str | None]:
        """Open ones, oldest first, and the next cursor."""
        if not 1 <= limit <= LIST_MAX:
            raise BadRequest(f"`limit` must be 1 to {LIST_MAX:,}, got {limit}.")
        after = (0, "", "")
        if cursor is not None:
            after = read_cursor(cursor, tuple[int, str, str], "oldest")
            if not is_uuid(after[1]):
                raise none_of_ours("oldest")
        found = await self._engine.store.read(
            approvals.list_questions(
                project_id=project_id,
                after=after,
                limit=limit + 1,
                now_us=self._engine.clock.now_us(),
            )
        )
        page = found[:limit]
        if len(found) <= limit:
            return page, None
        last = page[-1]
        return page, write_cursor((last.asked_at_us, last.execution_id, last.step_key))

    async def make_link(
        self, project_id: str, execution_id: str, step_key: str, *, name: str, seconds: int = LINK_SECONDS
    ) -> tuple[str, int]:
        """A token that answers the open question in a person's name, and its expiry. Raises NotFound, Conflict if no
        question is open, BadValue."""
        check_name(name, where="name")
        if not 1 <= seconds <= LINK_SECONDS_MAX:
            raise BadValue(
                f"expires_in_seconds: must be 1 to {LINK_SECONDS_MAX:,}, got {seconds}.", {"path": "expires_in_seconds"}
            )
        _, question = await self.get(project_id, execution_id, step_key)
        if question is None or question.state is not QuestionState.OPEN:
            raise Conflict(f"Execution {execution_id!r} asks nothing under {step_key!r} at the moment.")
        expires_at = self._engine.clock.now_us() // 1_000_000 + seconds
        link = Link(project_id, checked_id(execution_id), step_key, question.id, name, expires_at)
        said = msgspec.json.encode(link)
        secrets = await self._engine.signing.secrets(project_id)
        return f"{_encode(said)}.{_encode(_sign(secrets.links, said))}", expires_at

    async def read_link(self, token: str, execution_id: str, step_key: str) -> Link:
        """Raises Unauthorized if the token is invalid for this question."""
        wrong = Unauthorized("This link is not valid for this question.")
        said_text, _, signature_text = token.partition(".")
        try:
            said, signature = _decode(said_text), _decode(signature_text)
            link = msgspec.json.decode(said, type=Link)
        except (binascii.Error, ValueError):
            raise wrong from None
        if not is_uuid(link.project_id):
            raise wrong
        secrets = await self._engine.signing.known(link.project_id)
        if secrets is None or not hmac.compare_digest(_sign(secrets.links, said), signature):
            raise wrong
        if (link.execution_id, link.step_key) != (execution_id.lower(), step_key):
            raise wrong
        if link.expires_at_seconds * 1_000_000 <= self._engine.clock.now_us():
            raise Unauthorized("This link has expired; ask its sender for a new one.")
        return link


def _sign(secret: str, said: bytes) -> bytes:
    return hmac.digest(secret.encode(), _PURPOSE + said, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
