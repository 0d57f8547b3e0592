-- How many executions ended: rollups, and the ends that are too young for them.

-- text: of_any_project
project_id {IN (SELECT id FROM projects)|= ANY(ARRAY(SELECT id FROM projects))}

-- text: ended_between
FROM executions WHERE {= of_any_project} AND completed_at_us >= :from_us AND completed_at_us < :to_us

-- text: marks
folded_to_us, settled_to_us, deletions

-- name: read_folds
SELECT {= marks} FROM ended_folds WHERE id = 1;

-- name: begin_folds
-- picks: the one row
INSERT INTO ended_folds (id, folded_to_us, settled_to_us, deletions) VALUES (1, 0, 0, 0)
ON CONFLICT (id) DO NOTHING;

-- name: move_folds
-- picks: the one row, unless another server or a deletion came first
UPDATE ended_folds SET folded_to_us = :folded_to_us, settled_to_us = :settled_to_us
WHERE id = 1 AND folded_to_us = :was_folded_to_us AND settled_to_us = :was_settled_to_us AND deletions = :was_deletions
RETURNING id;

-- name: lock_folds
-- picks: the one row
UPDATE ended_folds SET deletions = deletions + 1 WHERE id = 1 RETURNING {= marks};

-- name: place_after
-- Up to where at most so many executions of each project ended.
SELECT MIN(at_us) FROM (SELECT (SELECT completed_at_us FROM executions WHERE executions.project_id = p.id
  AND completed_at_us >= :from_us AND completed_at_us < :to_us ORDER BY completed_at_us LIMIT 1 OFFSET :depth) AS at_us
  FROM projects p) AS places;

-- name: ended_groups
SELECT project_id, at_us, workflow_id, deployment_id, queue_name, phase, took, COUNT(*) AS n
FROM (SELECT project_id, {= end_group} {= ended_between}) AS ends
GROUP BY project_id, at_us, workflow_id, deployment_id, queue_name, phase, took;

-- name: ended_by_minute
SELECT project_id, at_us, COUNT(*) FROM (SELECT project_id, {= minute} AS at_us {= ended_between}) AS ends
GROUP BY project_id, at_us;

-- name: counted_by_minute
SELECT project_id, at_us, CAST(SUM(n) AS {INTEGER|BIGINT}) FROM ended_counts
WHERE {= of_any_project} AND step_us = 60000000 AND at_us >= :from_us AND at_us < :to_us
GROUP BY project_id, at_us;

-- name: counted_groups
SELECT project_id, at_us, workflow_id, deployment_id, queue_name, phase, took, n FROM ended_counts
WHERE {= of_any_project} AND step_us = 60000000 AND at_us = :at_us;

-- name: add_ended
-- picks: counts of slices; the row of `ended_folds` is locked before
-- bulk: step_us at_us took n
INSERT INTO ended_counts (project_id, step_us, at_us, workflow_id, deployment_id, queue_name, phase, took, n)
VALUES (:project_id, :step_us, :at_us, :workflow_id, :deployment_id, :queue_name, :phase, :took, :n)
ON CONFLICT (project_id, step_us, at_us, workflow_id, deployment_id, queue_name, phase, took)
DO UPDATE SET n = ended_counts.n + excluded.n;

-- name: drop_ended_from
-- picks: the counts of slices from a time on
DELETE FROM ended_counts WHERE {= of_any_project} AND step_us = :step_us AND at_us >= :at_us;

-- name: prune_ended_counts
-- picks: the counts of slices before a time
DELETE FROM ended_counts WHERE {= of_any_project} AND step_us = :step_us AND at_us < :at_us;
