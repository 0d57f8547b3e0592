-- One query per kind, for all that wait.

-- name: ended_among
SELECT id, phase, {= result}, error,
  CASE WHEN phase = 'failed' THEN
    (SELECT j.value FROM journal j WHERE j.execution_id = executions.id AND j.kind = 'failed' ORDER BY j.seq DESC LIMIT 1) END
FROM executions WHERE project_id = :project_id AND phase IN ('completed', 'failed', 'cancelled')
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))};

-- name: journals_at
SELECT i.value, (SELECT seq FROM journal WHERE execution_id = i.value ORDER BY seq DESC LIMIT 1),
  (SELECT n FROM logs WHERE execution_id = i.value ORDER BY n DESC LIMIT 1)
FROM {json_each(:ids) i|json_array_elements_text(:ids::JSON) i (value)};

-- name: streams_at
-- The progress of the streams of roots and their descendants, as one number.
SELECT i.value, COALESCE((SELECT n FROM stream_items WHERE execution_id = i.value ORDER BY n DESC LIMIT 1), 0) + COALESCE((SELECT
    CAST(SUM((SELECT s.n FROM stream_items s WHERE s.execution_id = e.id ORDER BY s.n DESC LIMIT 1)) AS BIGINT) FROM executions e
    WHERE e.project_id = :project_id AND e.root_execution_id = i.value), 0)
FROM {json_each(:ids) i|json_array_elements_text(:ids::JSON) i (value)};

-- name: topics_at
SELECT topic, last_seq FROM topics WHERE project_id = :project_id AND topic {IN (SELECT value FROM json_each(:topics))|= ANY(ARRAY(SELECT json_array_elements_text(:topics::JSON)))};

-- name: changed_of_workers
-- Held executions whose last row another writer wrote; the reply to their worker's next report would bring it.
SELECT e.assigned_to_worker, e.id, j.seq FROM executions e JOIN journal j ON j.execution_id = e.id AND j.seq = e.next_seq - 1
WHERE e.phase IN ('running', 'cancelling') AND j.kind IN ('event', 'resume', 'child', 'cancel_asked')
  AND e.assigned_to_worker {IN (SELECT value FROM json_each(:workers))|= ANY(ARRAY(SELECT json_array_elements_text(:workers::JSON)))};

-- name: unacknowledged_claims
SELECT assigned_to_worker, claim_id FROM executions
WHERE phase IN ('running', 'cancelling') AND acked = 0 AND claim_id IS NOT NULL
  AND assigned_to_worker {IN (SELECT value FROM json_each(:workers))|= ANY(ARRAY(SELECT json_array_elements_text(:workers::JSON)))}
GROUP BY assigned_to_worker, claim_id;

-- name: ready_deployments
-- Not EXISTS: PostgreSQL would load the ready executions of all deployments into a table.
SELECT d.value FROM {json_each(:deployments) d|json_array_elements_text(:deployments::JSON) d (value)}
WHERE (SELECT 1 FROM executions WHERE project_id = :project_id AND deployment_id = d.value AND phase = 'queued'
    AND gate = 0 AND due_at_us IS NULL LIMIT 1) IS NOT NULL
  OR (SELECT 1 FROM executions WHERE project_id = :project_id AND deployment_id = d.value AND phase = 'queued'
    AND gate = 1 AND due_at_us IS NULL LIMIT 1) IS NOT NULL;
