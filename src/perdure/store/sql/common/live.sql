-- Looks for the stream of changes.

-- name: stamps
-- What changes whenever an execution does.
SELECT id, next_seq, phase, gate, attempt, losses, retried_as, CASE WHEN OCTET_LENGTH(progress) <= 1024 THEN progress END
FROM executions WHERE project_id = :project_id AND id {= of_page};

-- name: failed_of_page
SELECT id FROM executions WHERE project_id = :project_id AND id {= of_page} AND phase = 'failed';

-- name: newest_questions
SELECT COUNT(*), MAX(opened_at_us) FROM (SELECT opened_at_us FROM waits
  WHERE project_id = :project_id AND state = 'open' AND data IS NOT NULL ORDER BY opened_at_us DESC LIMIT :limit) AS rows;
