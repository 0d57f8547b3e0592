"""The service of questions, answers, and links for people without a key."""

import base64
import binascii
import hashlib
import hmac
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from perdure.engine.base.callers import Callers
from perdure.engine.base.core import Core
from perdure.engine.base.service import Scope, Service, serves
from perdure.engine.people.signing import Signing
from perdure.store.verbs.agents import approvals
from perdure.wire.agents.approvals import (
    AnswerChannel,
    Approval,
    ApprovalLink,
    MakeApprovalLink,
    Question,
    QuestionLink,
    QuestionState,
)
from perdure.wire.base.access import UNSTORED
from perdure.wire.base.codec import KEY_BYTES_MAX, check_json, check_name
from perdure.wire.base.errors import Conflict, Unauthorized
from perdure.wire.base.fields import checked_id, is_uuid
from perdure.wire.base.status import Phase

_PURPOSE: Final = b"perdure approval link\n"


class Link(Struct, frozen=True, array_like=True):
    project_id: str
    execution_id: str
    step_key: str
    question_id: str
    name: str
    expires_at_seconds: int
    id: str


class Approvals(Service):
    def __init__(self, core: Core, signing: Signing, callers: Callers) -> None:
        super().__init__(core)
        self._callers = callers
        self._signing = signing

    async def get(
        self, project_id: str, execution_id: str, step_key: str, question_id: str | None = None
    ) -> tuple[Phase, Question | None]:
        """Return a question of an execution or descendant, with the execution's phase. `question_id` selects one of
        several questions. Raises NotFound."""
        return await self.read(
            approvals.find_question(
                project_id=project_id,
                execution_id=checked_id(execution_id),
                step_key=step_key,
                question_id=question_id,
                now_us=self.now_us(),
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
        how: AnswerChannel,
        question_id: str | None = None,
        link_id: str | None = None,
    ) -> Approval:
        """Answer the open question; with `question_id`, only this question. Raises NotFound, Conflict, BadValue."""
        check_name(step_key, where="step_key", max_bytes=KEY_BYTES_MAX)
        check_json(bytes(data), where="data")
        return await self.write(
            approvals.answer_question(
                project_id=project_id,
                execution_id=checked_id(execution_id),
                step_key=step_key,
                question_id=question_id,
                data=data,
                answered_by=answered_by,
                how=how,
                now_us=self.now_us(),
                link_id=link_id,
            )
        )

    @serves(MakeApprovalLink)
    async def make_link(self, scope: Scope, op: MakeApprovalLink) -> ApprovalLink:
        _, question = await self.get(scope.project_id, op.execution_id, op.step_key)
        if question is None or question.state is not QuestionState.OPEN:
            raise Conflict(f"Execution {op.execution_id!r} asks nothing under {op.step_key!r} at the moment.")
        now_us = self.now_us()
        expires_at = now_us // 1_000_000 + op.expires_in_seconds
        link = Link(
            project_id=scope.project_id,
            execution_id=op.execution_id,
            step_key=op.step_key,
            question_id=question.id,
            name=op.name,
            expires_at_seconds=expires_at,
            id=self.new_id(),
        )
        maker = scope.principal
        row = QuestionLink(
            id=link.id,
            execution_id=op.execution_id,
            step_key=op.step_key,
            question=question.id,
            name=op.name,
            made_by=await self._callers.name(maker),
            created_at_us=now_us,
            expires_at_us=expires_at * 1_000_000,
        )
        user_id = scope.user_id
        key_id = None if maker is None or user_id is not None or maker.key_id in UNSTORED else maker.key_id
        await self.write(approvals.keep_link(project_id=scope.project_id, link=row, key_id=key_id, user_id=user_id))
        said = msgspec.json.encode(link)
        secrets = await self._signing.secrets(scope.project_id)
        token = f"{_encode(said)}.{_encode(_sign(secrets.links, said))}"
        path = f"/approve/{op.execution_id}/{quote(op.step_key, safe='')}?link={token}"
        return ApprovalLink(path, expires_at * 1_000_000, link.id)

    async def read_link(self, token: str, execution_id: str, step_key: str) -> tuple[Link, str]:
        wrong = Unauthorized("This link is not valid for this question.")
        said_text, _, signature_text = token.partition(".")
        try:
            said, signature = _decode(said_text), _decode(signature_text)
            link = msgspec.json.decode(said, type=Link)
        except (binascii.Error, ValueError):
            raise wrong from None
        if not is_uuid(link.project_id):
            raise wrong
        secrets = await self._signing.known(link.project_id)
        now_us = self.now_us()
        signers = () if secrets is None else secrets.links_at(now_us)
        if not any(hmac.compare_digest(_sign(one, said), signature) for one in signers):
            raise wrong
        if (link.execution_id, link.step_key) != (execution_id.lower(), step_key):
            raise wrong
        if link.expires_at_seconds * 1_000_000 <= now_us:
            raise Unauthorized("This link has expired; ask its sender for a new one.")
        row = await self.read(approvals.read_link(project_id=link.project_id, id=link.id, now_us=now_us))
        if row is None:
            raise Unauthorized("This link has ended; ask its sender for a new one.")
        return link, row.author


def _sign(secret: str, said: bytes) -> bytes:
    return hmac.digest(secret.encode(), _PURPOSE + said, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
