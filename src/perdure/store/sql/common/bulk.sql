-- Bulk jobs.

-- text: job
id, action, state, filters, options, note, started_by, newest, total, at_least, done, refused, later, created_at_us,
  starts_at_us, moved_at_us, ended_at_us,
  CASE WHEN worked_us > 0 THEN CAST((done + refused) * 1000000.0 / worked_us AS DOUBLE PRECISION) END AS per_second

-- name: asking_among
-- The executions of a list whose step waits for an answer.
SELECT w.execution_id FROM waits w WHERE w.key = :key AND w.state = 'open'
  AND w.execution_id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
  AND (w.event_type IS NOT NULL OR (w.topic IS NULL AND w.batch_id IS NULL));

-- text: open_jobs
(SELECT COUNT(*) FROM bulk_jobs WHERE project_id = :project_id AND state = 'running')

-- name: insert_job
-- holds: bulk_job=id
-- Unless the project has too many open ones.
INSERT INTO bulk_jobs (project_id, id, action, filters, options, note, started_by, state, newest, place, total, at_least,
  done, refused, later, worked_us, created_at_us, starts_at_us, moved_at_us)
SELECT :project_id, :id, :action, :filters, :options, :note, :started_by, :state, :newest, :place, :total, :at_least,
  0, 0, 0, 0, :created_at_us, :starts_at_us, :moved_at_us WHERE {= open_jobs} < :most RETURNING id;

-- name: read_job
SELECT {= job} FROM bulk_jobs WHERE project_id = :project_id AND id = :id;

-- name: list_jobs
SELECT {= job} FROM bulk_jobs WHERE project_id = :project_id AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: due_jobs
SELECT project_id, id, place FROM bulk_jobs WHERE state = 'running' AND (starts_at_us IS NULL OR starts_at_us <= :now_us)
ORDER BY project_id, id LIMIT :limit;

-- name: next_job_due
SELECT MIN(starts_at_us) FROM bulk_jobs WHERE state = 'running' AND starts_at_us > :now_us;

-- name: selection_of_job
SELECT action, filters, options FROM bulk_jobs WHERE project_id = :project_id AND id = :id;

-- name: try_lock_job
-- picks: a running job, unless it is locked
SELECT place, started_by, note, later FROM bulk_jobs WHERE project_id = :project_id AND id = :id AND state = 'running'
{FOR UPDATE SKIP LOCKED};

-- name: lock_job
-- holds: bulk_job=id
SELECT state, ended_at_us, starts_at_us FROM bulk_jobs WHERE project_id = :project_id AND id = :id {FOR UPDATE};

-- name: set_job_state
-- holds: bulk_job=id
UPDATE bulk_jobs SET state = :state, starts_at_us = NULL, moved_at_us = :now_us WHERE project_id = :project_id AND id = :id
  AND (state = 'running' OR :state <> 'running' OR {= open_jobs} < :most) RETURNING id;

-- name: move_job
-- holds: bulk_job=id
-- Time counts as work while pages follow each other, and from the start of a held job.
UPDATE bulk_jobs SET place = :place, done = done + :done, refused = refused + :refused, later = later + :later,
  worked_us = worked_us + {MIN|LEAST}({MAX|GREATEST}(:now_us - {MAX|GREATEST}(moved_at_us, COALESCE(starts_at_us, 0)), 0),
    :pause_us), moved_at_us = :now_us,
  state = :state, ended_at_us = :ended_at_us
WHERE project_id = :project_id AND id = :id AND state = 'running';

-- name: put_item
-- holds: bulk_job=job_id
INSERT INTO bulk_items (job_id, execution_id, state, made_id, reason, at_us)
VALUES (:job_id, :execution_id, :state, :made_id, :reason, :at_us)
ON CONFLICT (job_id, execution_id) DO UPDATE SET state = :state, made_id = :made_id, reason = :reason, at_us = :at_us;

-- name: later_items
SELECT execution_id FROM bulk_items WHERE job_id = :job_id AND state = 'later' AND execution_id > :after
ORDER BY execution_id LIMIT :limit;

-- name: later_among
SELECT execution_id FROM bulk_items WHERE job_id = :job_id AND state = 'later'
  AND execution_id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
ORDER BY execution_id;

-- name: list_items
SELECT execution_id, state, made_id, reason, at_us FROM bulk_items WHERE job_id = :job_id AND execution_id < :before
ORDER BY execution_id DESC LIMIT :limit;

-- name: list_items_in_state
SELECT execution_id, state, made_id, reason, at_us FROM bulk_items
WHERE job_id = :job_id AND state = :state AND execution_id < :before ORDER BY execution_id DESC LIMIT :limit;

-- name: oldest_job
SELECT project_id, id FROM bulk_jobs WHERE state <> 'running' AND moved_at_us < :before_us ORDER BY moved_at_us LIMIT 1;

-- name: prune_items
-- holds: bulk_job=job_id
DELETE FROM bulk_items WHERE job_id = :job_id AND execution_id IN (
  SELECT i.execution_id FROM bulk_items i WHERE i.job_id = :job_id LIMIT :limit) RETURNING execution_id;

-- name: delete_job
-- holds: bulk_job=id
DELETE FROM bulk_jobs WHERE project_id = :project_id AND id = :id AND state <> 'running' RETURNING id;
