-- Queries for executions.

-- text: shown
{= execution}, {= result} AS result, COALESCE(session_id, id) AS session_id

-- name: get_execution
-- An execution without a session id is the first of its session, which has the execution's id. One that is due after the
-- year 9999 waits for something other than time.
SELECT {= shown} FROM executions WHERE project_id = :project_id AND id = :id;

-- name: read_end
SELECT id, phase, {= result} AS result, error,
  CASE WHEN phase = 'failed' THEN
    (SELECT j.value FROM journal j WHERE j.execution_id = executions.id AND j.kind = 'failed' ORDER BY j.seq DESC LIMIT 1) END
    AS detail
FROM executions WHERE project_id = :project_id AND id = :id;

-- name: end_sizes
-- The size of the result; NULL while an execution is open.
SELECT id, CASE WHEN phase IN ('completed', 'failed', 'cancelled') THEN COALESCE({= result_size}, 0) END
FROM executions WHERE project_id = :project_id AND id {= of_page};

-- name: how_ended
SELECT phase, error FROM executions WHERE project_id = :project_id AND id = :id;

-- name: list_executions
-- The executions of a page.
SELECT {= shown} FROM executions WHERE project_id = :project_id
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))} ORDER BY id DESC;

-- name: count_phases
-- One branch per index of open executions, so a table full of finished ones is not read.
SELECT project_id, workflow_id, phase, COUNT(*) FROM (
  SELECT project_id, workflow_id, phase FROM executions WHERE phase = 'queued' AND gate = 0 AND due_at_us IS NULL
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase = 'queued' AND gate = 1 AND due_at_us IS NULL
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE {= is_paused}
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase = 'queued' AND due_at_us IS NOT NULL
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase IN ('running', 'cancelling')
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase IN ('waiting', 'blocked')
  UNION ALL SELECT project_id, workflow_id, phase FROM executions WHERE phase = 'held') AS open
GROUP BY project_id, workflow_id, phase;

-- name: count_paused
SELECT z.project_id, z.kind, z.name, (SELECT COUNT(*) FROM executions WHERE {= is_paused} AND gate = z.number)
FROM pauses z WHERE z.state <> 'ending' ORDER BY z.number;

-- name: count_queued
-- Without paused executions, which no worker is to take.
SELECT project_id, deployment_id, queue_name, COUNT(*), MIN(ready_at_us) FROM (
  SELECT project_id, deployment_id, queue_name, ready_at_us FROM executions
  WHERE phase = 'queued' AND gate = 0 AND due_at_us IS NULL
  UNION ALL SELECT project_id, deployment_id, queue_name, ready_at_us FROM executions
  WHERE phase = 'queued' AND gate = 1 AND due_at_us IS NULL) AS ready
GROUP BY project_id, deployment_id, queue_name;

-- name: unserved
-- Ready work of deployments without a live registration, or without one that suits it.
SELECT e.project_id, e.deployment_id, e.python, e.needs_protocol, COUNT(*), MIN(e.ready_at_us) FROM (
  SELECT project_id, deployment_id, python, needs_protocol, ready_at_us FROM executions
  WHERE phase = 'queued' AND gate = 0 AND due_at_us IS NULL
  UNION ALL SELECT project_id, deployment_id, python, needs_protocol, ready_at_us FROM executions
  WHERE phase = 'queued' AND gate = 1 AND due_at_us IS NULL) AS e
WHERE e.ready_at_us < :before_us AND NOT EXISTS (
  SELECT 1 FROM workers w WHERE w.project_id = e.project_id AND w.deployment_id = e.deployment_id
    AND (e.python IS NULL OR w.python = e.python) AND (e.needs_protocol IS NULL OR w.protocol >= e.needs_protocol)
    AND (w.embedded <> 2 OR w.lease_until_us > :before_us))
GROUP BY e.project_id, e.deployment_id, e.python, e.needs_protocol;
