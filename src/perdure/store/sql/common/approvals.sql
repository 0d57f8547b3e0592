-- Questions of suspended steps, and their answers.

-- name: question_target
SELECT workflow_id, phase, root_execution_id FROM executions WHERE project_id = :project_id AND id = :id;

-- name: question_of
SELECT execution_id, state, topic, data, opened_at_us, expires_at_us, must_name, answer_schema, closed_at_us FROM waits
WHERE execution_id = :execution_id AND key = :key AND data IS NOT NULL AND state <> 'early';

-- name: question_below
-- The open question and the next one, among all below a root under a key; without an open one, the first two.
SELECT w.execution_id, w.state, w.topic, w.data, w.opened_at_us, w.expires_at_us, w.must_name, w.answer_schema, w.closed_at_us
FROM executions e JOIN waits w ON w.execution_id = e.id AND w.key = :key AND w.data IS NOT NULL AND w.state <> 'early'
WHERE e.project_id = :project_id AND e.root_execution_id = :id
ORDER BY CASE WHEN w.state = 'open' THEN 0 ELSE 1 END, w.opened_at_us, w.execution_id LIMIT 2;

-- text: listed
w.execution_id, COALESCE(e.root_execution_id, e.id) AS root_execution_id, e.workflow_id, w.key AS step_key, w.data,
  w.opened_at_us AS asked_at_us, w.expires_at_us, e.key

-- name: list_questions
SELECT {= listed}, 'open' AS state, NULL AS answer, NULL AS answered_by, NULL AS answered_at_us, NULL AS answered_how
FROM waits w JOIN executions e ON e.project_id = w.project_id AND e.id = w.execution_id
WHERE w.project_id = :project_id AND w.state = 'open' AND w.data IS NOT NULL
  AND (w.opened_at_us, w.execution_id, w.key) > (:place_us, :place_id, :place_key)
ORDER BY w.opened_at_us, w.execution_id, w.key LIMIT :limit;

-- text: open_question
SELECT w.execution_id, e.workflow_id, w.key AS step_key, w.data, w.opened_at_us AS asked_at_us, w.expires_at_us, w.answer_schema
FROM executions e JOIN waits w ON w.execution_id = e.id AND w.state = 'open' AND w.data IS NOT NULL

-- name: open_questions_of
{= open_question}
WHERE e.project_id = :project_id AND e.id = :id ORDER BY w.opened_at_us, w.key LIMIT :limit;

-- name: open_questions_below
{= open_question}
WHERE e.project_id = :project_id AND e.root_execution_id = :id AND e.phase IN ('running', 'waiting', 'queued')
ORDER BY w.opened_at_us, w.execution_id, w.key LIMIT :limit;

-- name: list_answered
-- Without answers that came before their questions, and without those that a fork copied.
SELECT {= listed}, 'answered' AS state, a.data AS answer, a.answered_by, a.answered_at_us, a.how AS answered_how
FROM approvals a JOIN waits w ON w.execution_id = a.execution_id AND w.key = a.key
JOIN executions e ON e.project_id = a.project_id AND e.id = a.execution_id
WHERE a.project_id = :project_id AND w.state = 'met' AND w.data IS NOT NULL
  AND a.answered_at_us >= w.opened_at_us AND a.answered_at_us >= e.created_at_us
  AND (a.answered_at_us, a.execution_id, a.key) < (:place_us, :place_id, :place_key)
ORDER BY a.answered_at_us DESC, a.execution_id DESC, a.key DESC LIMIT :limit;

-- name: list_expired
-- A worker's clock may be a little ahead when it gives a question up. Waits of earlier releases do not say when they closed.
SELECT {= listed}, 'expired' AS state, NULL AS answer, NULL AS answered_by, NULL AS answered_at_us, NULL AS answered_how
FROM waits w JOIN executions e ON e.project_id = w.project_id AND e.id = w.execution_id
WHERE w.project_id = :project_id AND w.state <> 'met' AND w.data IS NOT NULL AND w.expires_at_us IS NOT NULL
  AND w.expires_at_us <= :now_us AND w.opened_at_us >= e.created_at_us
  AND (w.state = 'open' OR w.closed_at_us IS NULL OR w.closed_at_us >= w.expires_at_us - :skew_us)
  AND (w.expires_at_us, w.execution_id, w.key) < (:place_us, :place_id, :place_key)
ORDER BY w.expires_at_us DESC, w.execution_id DESC, w.key DESC LIMIT :limit;

-- name: read_approvals
-- The newest two: an answer older than the question came before it.
SELECT answered_at_us, answered_by, how, data FROM approvals WHERE execution_id = :execution_id AND key = :key
ORDER BY answered_at_us DESC LIMIT 2;

-- name: note_approval
-- holds: execution=execution_id
-- For answers that may have come before: the author of the first stays. No answer is older than its question.
INSERT INTO approvals (execution_id, key, answered_at_us, project_id, answered_by, how, data)
SELECT w.execution_id, w.key, {MAX|GREATEST}(w.opened_at_us, :now_us), :project_id, :answered_by, :how, :data{::BYTEA}
FROM waits w WHERE w.execution_id = :execution_id AND w.key = :key AND NOT EXISTS (SELECT 1 FROM approvals a
  WHERE a.execution_id = w.execution_id AND a.key = w.key AND a.answered_at_us >= w.opened_at_us);

-- text: links_alive
approval_links l WHERE l.project_id = :project_id AND l.expires_at_us > :now_us
  AND (l.key_id IS NULL OR EXISTS (SELECT 1 FROM api_keys k WHERE k.project_id = l.project_id AND k.id = l.key_id))
  AND (l.user_id IS NULL OR EXISTS (SELECT 1 FROM members m
    WHERE m.project_id = l.project_id AND m.user_id = l.user_id AND m.role <> 'read'))

-- name: insert_link
-- holds: execution=execution_id
INSERT INTO approval_links (project_id, key_id, user_id, {columns QuestionLink})
VALUES (:project_id, :key_id, :user_id, {values QuestionLink});

-- name: delete_old_links
-- holds: project=project_id
DELETE FROM approval_links WHERE project_id = :project_id AND expires_at_us <= :now_us;

-- name: read_link
SELECT {columns QuestionLink} FROM {= links_alive} AND l.id = :id;

-- name: list_links
SELECT {columns QuestionLink} FROM {= links_alive} AND (l.created_at_us, l.id) < (:before_us, :before_id)
ORDER BY l.created_at_us DESC, l.id DESC LIMIT :limit;

-- name: note_link_used
-- holds: execution=execution_id
UPDATE approval_links SET used_at_us = :now_us WHERE id = :id AND execution_id = :execution_id AND used_at_us IS NULL;

-- name: revoke_link
-- holds: project=project_id
DELETE FROM approval_links WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: end_links
-- holds: project=project_id
UPDATE approval_links SET expires_at_us = :until_us WHERE project_id = :project_id AND expires_at_us > :until_us;

-- name: delete_links_of_member
-- holds: project=project_id
DELETE FROM approval_links WHERE project_id = :project_id AND user_id = :user_id;

-- name: delete_links
-- holds: execution=id
DELETE FROM approval_links WHERE execution_id = :id;

-- name: delete_approvals
-- holds: execution=id
DELETE FROM approvals WHERE execution_id = :id;
