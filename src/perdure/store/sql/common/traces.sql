-- Spans that were sent in, and their traces.

-- text: trace_row
root_span_id, root_span_type, root_span_name, rooted, started_at_us, ended_at_us, failed, spans

-- name: lock_execution_of_trace
-- holds: execution=id
-- A deletion of the execution deletes its spans afterwards, and so waits for spans that are being added.
SELECT id FROM executions WHERE project_id = :project_id AND id = :id {FOR KEY SHARE};

-- name: lock_trace
-- holds: trace=trace_id
INSERT INTO traces (project_id, trace_id, rooted, sorted_at_us, failed, spans, of_execution, written_at_us)
VALUES (:project_id, :trace_id, 0, 0, 0, 0, :of_execution, :now_us)
ON CONFLICT (project_id, trace_id) DO UPDATE SET of_execution = excluded.of_execution, written_at_us = excluded.written_at_us
RETURNING {= trace_row};

-- name: read_trace
SELECT {= trace_row} FROM traces
WHERE project_id = :project_id AND trace_id = :trace_id;

-- name: known_spans
SELECT span_id FROM spans WHERE project_id = :project_id AND trace_id = :trace_id
  AND span_id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))};

-- name: upsert_span
-- holds: trace=trace_id
INSERT INTO spans (project_id, trace_id, span_id, parent_span_id, name, span_type, failed, started_at_us, ended_at_us, body)
VALUES (:project_id, :trace_id, :span_id, :parent_span_id, :name, :span_type, :failed, :started_at_us, :ended_at_us, :body)
ON CONFLICT (project_id, trace_id, span_id) DO UPDATE SET parent_span_id = excluded.parent_span_id,
  name = excluded.name, span_type = excluded.span_type, failed = excluded.failed, started_at_us = excluded.started_at_us,
  ended_at_us = excluded.ended_at_us, body = excluded.body;

-- name: update_trace
-- holds: trace=trace_id
UPDATE traces SET root_span_id = :root_span_id, root_span_type = :root_span_type, root_span_name = :root_span_name,
  rooted = :rooted, started_at_us = :started_at_us, ended_at_us = :ended_at_us, sorted_at_us = :sorted_at_us,
  failed = :failed, spans = :spans
WHERE project_id = :project_id AND trace_id = :trace_id RETURNING trace_id;

-- name: delete_spans
-- holds: trace=trace_id
DELETE FROM spans WHERE project_id = :project_id AND trace_id = :trace_id;

-- name: delete_trace
-- holds: trace=trace_id
DELETE FROM traces WHERE project_id = :project_id AND trace_id = :trace_id;

-- name: old_traces
-- Traces without an execution, whose spans were sent long ago.
SELECT project_id, trace_id, spans FROM traces WHERE of_execution = 0 AND written_at_us < :before_us
ORDER BY written_at_us LIMIT :limit {FOR UPDATE SKIP LOCKED};
