-- Conversations: messages numbered from 1 in each.

-- name: advance_conversation
-- holds: conversation=conversation_id
INSERT INTO conversations (project_id, id, last_id) VALUES (:project_id, :conversation_id, 1)
ON CONFLICT (project_id, id) DO UPDATE SET last_id = conversations.last_id + 1 RETURNING last_id;

-- name: insert_message
-- holds: conversation=conversation_id
INSERT INTO conversation_messages (project_id, conversation_id, agent_id, id, role, content, agent_run_id, created_at_us)
VALUES (:project_id, :conversation_id, :agent_id, :id, :role, :content, :agent_run_id, :now_us);

-- name: trim_messages
-- holds: conversation=conversation_id
DELETE FROM conversation_messages
WHERE project_id = :project_id AND conversation_id = :conversation_id AND agent_id = :agent_id AND id <= (
  SELECT m.id FROM conversation_messages m
  WHERE m.project_id = :project_id AND m.conversation_id = :conversation_id AND m.agent_id = :agent_id
  ORDER BY m.id DESC LIMIT 1 OFFSET :keep);

-- name: message_sizes
SELECT OCTET_LENGTH(content) FROM conversation_messages
WHERE project_id = :project_id AND conversation_id = :conversation_id AND agent_id = :agent_id
ORDER BY id DESC LIMIT :limit;

-- name: newest_messages
SELECT {columns ConversationMessage} FROM conversation_messages
WHERE project_id = :project_id AND conversation_id = :conversation_id AND agent_id = :agent_id
ORDER BY id DESC LIMIT :limit;
