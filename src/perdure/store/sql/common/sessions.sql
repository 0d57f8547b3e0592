-- Sessions: the memory of agents.

-- name: read_memory
SELECT summary, messages, version FROM session_memory WHERE project_id = :project_id AND session_id = :session_id;

-- name: put_memory
-- holds: session=session_id
INSERT INTO session_memory (project_id, session_id, summary, messages, version, written_at_us)
VALUES (:project_id, :session_id, :summary, :messages, 1, :now_us)
ON CONFLICT (project_id, session_id) DO UPDATE SET summary = excluded.summary, messages = excluded.messages,
  version = session_memory.version + 1, written_at_us = excluded.written_at_us
RETURNING version;

-- name: insert_memory
-- holds: session=session_id
-- For a writer that saw no memory yet.
INSERT INTO session_memory (project_id, session_id, summary, messages, version, written_at_us)
VALUES (:project_id, :session_id, :summary, :messages, 1, :now_us)
ON CONFLICT (project_id, session_id) DO NOTHING RETURNING version;

-- name: update_memory
-- holds: session=session_id
-- For a writer that saw this version.
UPDATE session_memory SET summary = :summary, messages = :messages, version = version + 1, written_at_us = :now_us
WHERE project_id = :project_id AND session_id = :session_id AND version = :version RETURNING version;

-- name: delete_memory
-- holds: session=session_id
DELETE FROM session_memory WHERE project_id = :project_id AND session_id = :session_id;

-- name: prune_memory
-- picks: memory without a recent write
WITH due AS MATERIALIZED (
  SELECT project_id, session_id FROM session_memory WHERE written_at_us < :before_us LIMIT :limit {FOR UPDATE SKIP LOCKED})
DELETE FROM session_memory WHERE (project_id, session_id) IN (SELECT project_id, session_id FROM due) RETURNING session_id;

-- name: agent_names
-- Workflows that are agents, in any deployment.
SELECT id FROM workflows WHERE project_id = :project_id AND type = 'agent' GROUP BY id ORDER BY id LIMIT :limit;

-- text: root_of_time
AND id >= :floor_id AND id < :before AND root_execution_id IS NULL AND created_at_us >= :from_us AND created_at_us <= :to_us
ORDER BY id DESC LIMIT :limit

-- name: ended_agent_runs
-- Root executions of an agent that ended in this phase, newest first.
SELECT id FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id AND phase = :phase
  AND completed_at_us IS NOT NULL {= root_of_time};

-- name: open_agent_runs
SELECT id FROM executions WHERE project_id = :project_id AND workflow_id = :workflow_id AND completed_at_us IS NULL
  AND (:phases{::TEXT} IS NULL OR {INSTR|STRPOS}(:phases, ' ' || phase || ' ') > 0) {= root_of_time};

-- name: session_roots
-- The roots of a session, newest first: those with its id, and the one that it is named after.
SELECT id FROM (
  SELECT id FROM executions WHERE project_id = :project_id AND session_id = :session_id AND root_execution_id IS NULL
  UNION ALL SELECT id FROM executions WHERE project_id = :project_id AND id = :session_id AND root_execution_id IS NULL
    AND (session_id IS NULL OR session_id <> :session_id)) AS of_session
ORDER BY id DESC LIMIT :limit;

-- name: session_run
-- Without values larger than `bytes_max`. Counts the questions of the run and its first thousand descendants.
SELECT id, workflow_id, phase, COALESCE(session_id, id) AS session_id, created_at_us, started_at_us, completed_at_us, error,
  CASE WHEN {= payload_size} <= :bytes_max THEN {= payload} END AS payload,
  CASE WHEN {= result_size} <= :bytes_max THEN {= result} END AS result,
  (SELECT COUNT(*) FROM waits w WHERE w.execution_id = executions.id
    AND ((w.topic IS NULL AND w.data IS NOT NULL) OR w.topic = 'workflow/' || executions.workflow_id || '/' || executions.id))
  + (SELECT COUNT(*) FROM (SELECT c.id FROM executions c WHERE c.project_id = :project_id AND c.root_execution_id = :id
      ORDER BY c.id LIMIT 1000) AS rows JOIN waits w ON w.execution_id = rows.id
    AND ((w.topic IS NULL AND w.data IS NOT NULL) OR w.topic = 'workflow/' || executions.workflow_id || '/' || executions.id))
  AS approvals
FROM executions WHERE project_id = :project_id AND id = :id AND root_execution_id IS NULL;

-- name: agent_steps
-- Model answers and tool values of a run and its first thousand descendants. Tool values larger than `bytes_max` are
-- left out. Without statistics PostgreSQL would use the kind, and begin with the steps of all executions.
-- Of a fork's copies, the model answers count for the source.
SELECT j.execution_id, j.seq, j.at_us, j.kind, j.key, j.name, j.ok,
  CASE WHEN j.name = :model OR j.name = :summary OR {= value_size} <= :bytes_max THEN {= value} END AS value
FROM (SELECT id, COALESCE(kept_rows, 0) AS kept_rows FROM executions WHERE project_id = :project_id AND id = :id
  UNION ALL SELECT id, kept_rows FROM (SELECT id, COALESCE(kept_rows, 0) AS kept_rows FROM executions
    WHERE project_id = :project_id AND root_execution_id = :id ORDER BY id LIMIT 1000) AS rows) AS of_session
JOIN journal j ON j.execution_id = of_session.id
WHERE (j.name = :model OR j.name = :summary) AND j.seq > of_session.kept_rows OR SUBSTR(j.name, 1, 5) = 'tool.' OR SUBSTR(j.name, 1, 4) = 'mcp.'
ORDER BY j.execution_id, j.seq LIMIT :limit;

-- name: questions_of
-- Questions of suspended steps of a run and its first thousand descendants, with their answers. Native workers'
-- questions are in the wait, push workers' on the run's topic.
SELECT w.execution_id, w.key AS step_key, w.state = 'open' AS open, w.opened_at_us AS asked_at_us, w.data AS request,
  j.at_us AS answered_at_us, j.value AS response
FROM (SELECT id FROM executions WHERE project_id = :project_id AND id = :execution_id
  UNION ALL SELECT id FROM (SELECT id FROM executions WHERE project_id = :project_id AND root_execution_id = :execution_id
    ORDER BY id LIMIT 1000) AS rows) AS of_session
JOIN waits w ON w.execution_id = of_session.id
LEFT JOIN journal j ON j.execution_id = w.execution_id AND j.key = w.key AND j.kind = 'resume'
WHERE ((w.topic IS NULL AND w.data IS NOT NULL) OR w.topic = :topic) AND w.state <> 'early'
ORDER BY w.execution_id, w.key LIMIT :limit;

-- name: asked_on_topic
-- Questions and answers on a run's topic.
SELECT event_type, data, created_at_us FROM events WHERE project_id = :project_id AND topic = :topic AND seq > :after
  AND (SUBSTR(event_type, 1, 8) = 'suspend_' OR SUBSTR(event_type, 1, 7) = 'resume_') ORDER BY seq LIMIT :limit;
