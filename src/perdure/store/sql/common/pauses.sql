-- Pauses of queues, concurrency keys, workflows and deployments.

-- name: begin_pause
-- alone: starts, wakes and claims read the pauses, and act by them
-- Precedes a pause and its end. A transaction that has read the pauses has ended by then, so no execution of it is on
-- its way to a worker, and none gets the number of a pause that is gone. All servers wait meanwhile, so nothing is
-- counted here.
SELECT 1;

-- name: put_pause
-- holds: pause=name
INSERT INTO pauses (project_id, kind, name, concurrency_key, number, state, paused_at_us, paused_by, note, until_us, place)
VALUES (:project_id, :kind, :name, :concurrency_key, (SELECT {MAX|GREATEST}(COALESCE(MAX(z.number), 0), 1) + 1 FROM pauses z),
  'marking', :now_us, :paused_by, :note, :until_us, NULL)
ON CONFLICT (project_id, kind, name, concurrency_key) DO UPDATE SET paused_by = excluded.paused_by, note = excluded.note,
  until_us = excluded.until_us, place = NULL, state = 'marking',
  paused_at_us = CASE WHEN pauses.state = 'ending' THEN excluded.paused_at_us ELSE pauses.paused_at_us END
RETURNING kind, name, paused_at_us, paused_by, NULLIF(concurrency_key, '') AS concurrency_key, note, until_us;

-- name: end_pause
-- holds: pause=name
UPDATE pauses SET state = 'ending', place = NULL, until_us = NULL
WHERE project_id = :project_id AND kind = :kind AND name = :name AND concurrency_key = :concurrency_key AND state <> 'ending'
RETURNING number;

-- name: end_due_pauses
-- picks: pauses whose time is over
UPDATE pauses SET state = 'ending', place = NULL, until_us = NULL WHERE until_us <= :now_us
RETURNING project_id, kind, name, concurrency_key;

-- name: mark_again
-- picks: the pauses of a project; executions have come that know nothing of them
UPDATE pauses SET state = 'marking', place = NULL WHERE project_id = :project_id AND state = 'holding';

-- text: shown_pause
z.kind, z.name, NULLIF(z.concurrency_key, '') AS concurrency_key, z.paused_at_us, z.paused_by, z.note, z.until_us,
  (SELECT COUNT(*) FROM executions WHERE {= is_paused} AND gate = z.number) AS held

-- name: list_pauses
SELECT {= shown_pause} FROM pauses z WHERE z.project_id = :project_id AND z.state <> 'ending'
ORDER BY z.kind, z.name, z.concurrency_key;

-- name: read_pause
SELECT {= shown_pause} FROM pauses z WHERE z.project_id = :project_id AND z.kind = :kind AND z.name = :name
  AND z.concurrency_key = :concurrency_key AND z.state <> 'ending';

-- name: pause_of
-- The pause that holds a queued execution, also one that does not carry its number yet: the first in the order of the
-- rules.
SELECT {= shown_pause} FROM executions e JOIN pauses z ON z.project_id = e.project_id
WHERE e.project_id = :project_id AND e.id = :id AND z.state <> 'ending' AND (
  z.kind = 'deployment' AND z.name = e.deployment_id OR z.kind = 'workflow' AND z.name = e.workflow_id
  OR z.kind = 'queue' AND z.name = e.queue_name
  OR z.kind = 'key' AND z.name = e.queue_name AND z.concurrency_key = e.concurrency_key)
ORDER BY CASE z.kind WHEN 'deployment' THEN 1 WHEN 'workflow' THEN 2 WHEN 'queue' THEN 3 ELSE 4 END LIMIT 1;

-- name: any_workflow
-- Push workers run any workflow, so it need not be registered.
SELECT 1 FROM deployments d WHERE d.project_id = :project_id AND d.retired_at_us IS NULL AND (d.push = 1 OR EXISTS (
  SELECT 1 FROM workflows w WHERE w.project_id = d.project_id AND w.deployment_id = d.id AND w.id = :name)) LIMIT 1;

-- name: pauses_to_work
-- Pauses with executions to mark or to release, and the next time at which one ends.
SELECT number, state, until_us FROM pauses WHERE state <> 'holding' OR until_us IS NOT NULL ORDER BY number;

-- name: try_lock_pause
-- holds: pause=number
SELECT project_id, kind, name, concurrency_key, place FROM pauses WHERE number = :number AND state = :state
{FOR UPDATE SKIP LOCKED};

-- text: covered
CASE :kind WHEN 'deployment' THEN deployment_id = :name WHEN 'workflow' THEN workflow_id = :name
    WHEN 'queue' THEN queue_name = :name ELSE queue_name = :name AND concurrency_key = :concurrency_key END

-- text: is_ready
phase || '' = 'queued' AND gate <= 1 AND due_at_us IS NULL

-- name: open_after
-- The next open executions after a place, and whether a pause covers them and they are ready.
SELECT workflow_id, id, CASE WHEN {= is_ready} AND {= covered} THEN 1 ELSE 0 END AS covered FROM executions
WHERE project_id = :project_id AND completed_at_us IS NULL AND (workflow_id, id) > (:workflow_id, :after)
ORDER BY workflow_id, id LIMIT :limit;

-- name: mark_paused
-- picks: ready executions that a pause covers
UPDATE executions SET gate = :number
WHERE project_id = :project_id AND {= is_ready} AND {= covered} AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(
  SELECT id FROM executions WHERE project_id = :project_id
    AND id = ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON))) FOR UPDATE SKIP LOCKED))}
RETURNING id;

-- name: note_marked
-- holds: pause=number
UPDATE pauses SET state = :state, place = :place WHERE number = :number;

-- text: held_by_pause
{= is_paused} AND gate = :number

-- name: release_paused
-- picks: executions that a pause held; another one may cover them
UPDATE executions SET gate = {= gate}
WHERE project_id = :project_id AND phase || '' = 'queued' AND gate = :number AND id {IN (|= ANY(ARRAY(}
  SELECT id FROM executions WHERE {= held_by_pause} ORDER BY id LIMIT :limit {FOR UPDATE SKIP LOCKED}{)|))}
RETURNING deployment_id;

-- name: any_paused
SELECT 1 FROM executions WHERE {= held_by_pause} LIMIT 1;

-- name: delete_pause
-- holds: pause=number
DELETE FROM pauses WHERE number = :number AND state = 'ending';
