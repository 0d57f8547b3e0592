-- Timelines: journals without large values.

-- name: entries
-- A page of a journal. Without `every`, only the values that a timeline reads.
SELECT seq, at_us, kind, attempt, key, name, fingerprint, ok, {= value_size} AS size,
  CASE WHEN (:every = 1 OR ok = 0 OR kind IN ('child_started', 'lost') OR name IN ('model.request', 'conversation.summarize'))
    AND {= value_size} <= :bytes_max THEN {= value} END AS value,
  started_at_us, tries, label, quiet
FROM journal j WHERE execution_id = :execution_id AND seq > :after ORDER BY seq LIMIT :limit;

-- name: waits_of_keys
SELECT {= wait}
FROM waits w WHERE w.execution_id = :execution_id
  AND w.key {IN (SELECT value FROM json_each(:keys))|= ANY(ARRAY(SELECT json_array_elements_text(:keys::JSON)))};

-- name: newest_waits
SELECT {= wait}
FROM waits w WHERE w.execution_id = :execution_id AND (:unmet = 0 OR w.state = 'open' OR w.state = 'closed')
ORDER BY w.opened_at_us DESC, w.key DESC LIMIT :limit;

-- text: wait
w.key, w.topic, CASE WHEN OCTET_LENGTH(w.match) <= :bytes_max THEN w.match END AS match, w.state,
  w.opened_at_us, w.expires_at_us, w.event_type, w.batch_id, (SELECT a.answered_by FROM approvals a
    WHERE a.execution_id = w.execution_id AND a.key = w.key ORDER BY a.answered_at_us DESC LIMIT 1) AS answered_by

-- name: timeline_children
SELECT {= brief} FROM executions WHERE project_id = :project_id
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))};

-- name: steps_rerun
-- Outcomes of steps, among some rows, whose key has an earlier one.
SELECT COUNT(*) FROM journal j WHERE j.execution_id = :execution_id AND j.seq BETWEEN :first_seq AND :last_seq AND j.kind = 'step'
  AND EXISTS (SELECT 1 FROM journal b WHERE b.execution_id = j.execution_id AND b.key = j.key AND b.kind = 'step' AND b.seq < j.seq);
