"""The service of conversation histories."""

from typing import Final

from perdure.engine.base.service import Scope, Service, serves
from perdure.store.verbs.agents import conversations
from perdure.wire.agents.conversations import AddConversationMessage, ConversationMessage, GetConversationHistory
from perdure.wire.base.operation import Listed
from perdure.wire.base.record import DONE, Done

LIST_MAX: Final = 1_000


class Conversations(Service):
    @serves(AddConversationMessage)
    async def add(self, scope: Scope, op: AddConversationMessage) -> Done:
        await self.write(
            conversations.add_message(
                project_id=scope.project_id, message=op, now_us=self.now_us(), idempotency=scope.idempotency
            )
        )
        return DONE

    @serves(GetConversationHistory)
    async def get(self, scope: Scope, op: GetConversationHistory) -> Listed[ConversationMessage]:
        return Listed(
            await self.read(
                conversations.get_messages(
                    project_id=scope.project_id,
                    conversation_id=op.conversation_id,
                    agent_id=op.agent_id,
                    limit=LIST_MAX if op.limit is None else min(op.limit, LIST_MAX),
                )
            )
        )
