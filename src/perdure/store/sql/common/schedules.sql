-- Schedules.

-- text: to_change
schedule_id = :schedule_id AND (state = 'started' OR state = 'waiting') AND (state = 'waiting' OR NOT EXISTS (
  SELECT 1 FROM executions e WHERE e.project_id = schedule_fires.project_id AND e.id = schedule_fires.execution_id
    AND e.phase NOT IN ('completed', 'failed', 'cancelled')))

-- name: insert_schedule
-- holds: schedule=id
INSERT INTO schedules (project_id, {columns StoredSchedule}) VALUES (:project_id, {values StoredSchedule})
ON CONFLICT (project_id, workflow_id, key) DO NOTHING RETURNING id;

-- name: find_schedule
SELECT id FROM schedules WHERE project_id = :project_id AND workflow_id = :workflow_id AND key = :key;

-- name: count_schedules
SELECT COUNT(*) FROM schedules WHERE project_id = :project_id;

-- name: read_schedule
SELECT {columns StoredSchedule} FROM schedules WHERE project_id = :project_id AND id = :id;

-- name: lock_schedule
-- holds: schedule=id
-- As read_schedule, locked for a change.
SELECT {columns StoredSchedule} FROM schedules WHERE project_id = :project_id AND id = :id {FOR UPDATE};

-- name: try_lock_schedule
-- holds: schedule=id
-- As read_schedule, locked for firing. No row: another server has it at this moment, or it is gone.
SELECT {columns StoredSchedule} FROM schedules WHERE project_id = :project_id AND id = :id {FOR UPDATE SKIP LOCKED};

-- name: update_schedule
-- holds: schedule=id
UPDATE schedules SET cron = :cron, timezone = :timezone, status = :status, overlap = :overlap, missed = :missed,
  missed_window_seconds = :missed_window_seconds, payload = :payload, declared = :declared, next_at_us = :next_at_us,
  updated_at_us = :updated_at_us
WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: advance_schedule
-- holds: schedule=id
UPDATE schedules SET next_at_us = :next_at_us, last_slot_us = :last_slot_us WHERE project_id = :project_id AND id = :id
RETURNING id;

-- name: delete_schedule
-- holds: schedule=id
DELETE FROM schedules WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: declared_schedules
SELECT id, workflow_id, key FROM schedules WHERE project_id = :project_id AND declared = 1 ORDER BY id;

-- name: list_schedules
SELECT {columns StoredSchedule} FROM schedules WHERE project_id = :project_id AND id < :before AND (:workflow_id{::TEXT} IS NULL OR workflow_id = :workflow_id)
ORDER BY id DESC LIMIT :limit;

-- name: scheduled_workflows
SELECT workflow_id FROM schedules WHERE project_id = :project_id AND status = 'active' GROUP BY workflow_id ORDER BY workflow_id;

-- name: due_schedules
SELECT project_id, id, missed, next_at_us FROM schedules WHERE status = 'active' AND next_at_us <= :now_us
ORDER BY next_at_us LIMIT :limit;

-- name: unblocked_schedules
-- Schedules with a fire that waits for an execution which has ended meanwhile.
SELECT s.project_id, s.id FROM schedules s WHERE s.status = 'active'
  AND s.id {IN (SELECT w.schedule_id FROM schedule_fires w WHERE w.state = 'waiting')|= (SELECT w.schedule_id FROM schedule_fires w WHERE w.schedule_id = s.id AND w.state = 'waiting' LIMIT 1)}
  AND NOT EXISTS (SELECT 1 FROM schedule_fires f JOIN executions e ON e.project_id = f.project_id AND e.id = f.execution_id
    WHERE f.schedule_id = s.id AND (f.state = 'started' OR f.state = 'waiting') AND f.state = 'started' AND e.phase NOT IN ('completed', 'failed', 'cancelled'))
LIMIT :limit;

-- name: waiting_workflows
SELECT s.workflow_id FROM schedules s
WHERE s.id IN (SELECT w.schedule_id FROM schedule_fires w WHERE w.state = 'waiting') GROUP BY s.workflow_id;

-- name: next_schedule
SELECT MIN(next_at_us) FROM schedules WHERE status = 'active';

-- name: insert_fire
-- holds: schedule=schedule_id
-- I7: no row if this slot was fired before.
INSERT INTO schedule_fires (schedule_id, slot_us, by_hand, project_id, state, execution_id, reason, fired_at_us)
VALUES (:schedule_id, :slot_us, :by_hand, :project_id, :state, :execution_id, :reason, :now_us)
ON CONFLICT (schedule_id, slot_us, by_hand) DO NOTHING RETURNING slot_us;

-- name: update_fire
-- holds: schedule=schedule_id
UPDATE schedule_fires SET state = :state, execution_id = :execution_id, reason = :reason, fired_at_us = :now_us
WHERE schedule_id = :schedule_id AND slot_us = :slot_us AND by_hand = '' RETURNING slot_us;

-- name: settle_fires
-- holds: schedule=schedule_id
UPDATE schedule_fires SET state = 'done' WHERE state = 'started' AND {= to_change} RETURNING slot_us;

-- name: locked_fires
-- holds: schedule=schedule_id
-- How many finished or waiting fires are locked elsewhere. It locks the rest.
SELECT COUNT(*) - (SELECT COUNT(*) FROM (SELECT slot_us FROM schedule_fires WHERE {= to_change} {FOR UPDATE SKIP LOCKED}) AS free)
FROM schedule_fires WHERE {= to_change};

-- name: open_fires
-- The number of started open fires, the number of waiting ones, and the first waiting one.
SELECT COUNT(CASE WHEN state = 'started' THEN 1 END), COUNT(CASE WHEN state = 'waiting' THEN 1 END),
  MIN(CASE WHEN state = 'waiting' THEN slot_us END)
FROM schedule_fires WHERE schedule_id = :schedule_id AND (state = 'started' OR state = 'waiting');

-- name: list_fires
-- The next look at its schedule settles a fire; readers see the truth before that, too.
SELECT slot_us, fired_at_us, by_hand <> '' AS by_hand, CASE WHEN state = 'started' AND NOT EXISTS (
    SELECT 1 FROM executions e WHERE e.project_id = schedule_fires.project_id AND e.id = schedule_fires.execution_id
      AND e.phase NOT IN ('completed', 'failed', 'cancelled')) THEN 'done' ELSE state END AS state,
  execution_id, reason FROM schedule_fires
WHERE schedule_id = :schedule_id AND slot_us < :before_us ORDER BY slot_us DESC, schedule_fires.by_hand DESC LIMIT :limit;

-- name: delete_fires
-- holds: schedule=schedule_id
DELETE FROM schedule_fires WHERE schedule_id = :schedule_id;

-- name: prune_fires
-- picks: fires of long ago that are over
WITH due AS MATERIALIZED (
  SELECT schedule_id, slot_us, by_hand FROM schedule_fires
  WHERE fired_at_us < :before_us AND state IN ('done', 'skipped') LIMIT :limit {FOR UPDATE SKIP LOCKED})
DELETE FROM schedule_fires WHERE (schedule_id, slot_us, by_hand) IN (SELECT schedule_id, slot_us, by_hand FROM due)
RETURNING slot_us;
