-- Traces: those with spans that were sent in, and the journals of executions.

-- name: traces_floor
-- The depth limit of a list: the end of the trace at that depth.
SELECT sorted_at_us FROM traces WHERE project_id = :project_id AND sorted_at_us >= :from_us AND sorted_at_us <= :to_us
ORDER BY sorted_at_us DESC LIMIT 1 OFFSET :depth;

-- name: list_traces
-- Of those that ended at `to_us` itself, the ones after the place `before`.
SELECT trace_id, sorted_at_us FROM traces
WHERE project_id = :project_id AND sorted_at_us >= :from_us AND sorted_at_us <= :to_us
  AND (:span_type{::TEXT} IS NULL OR root_span_type = :span_type)
  AND (:name{::TEXT} IS NULL OR {INSTR|STRPOS}(root_span_name, :name) > 0)
  AND (:failed{::BIGINT} IS NULL OR failed = :failed) AND (sorted_at_us < :to_us OR trace_id < :before)
ORDER BY sorted_at_us DESC, trace_id DESC LIMIT :limit;

-- name: ended_floor
-- The same for executions: the end of the one at that depth.
SELECT completed_at_us FROM executions
WHERE project_id = :project_id AND completed_at_us >= :from_us AND completed_at_us <= :to_us
ORDER BY completed_at_us DESC LIMIT 1 OFFSET :depth;

-- name: list_ended_roots
-- Root executions without spans that were sent in: their journal is their trace.
SELECT e.id, e.completed_at_us FROM executions e LEFT JOIN workflows w ON w.project_id = e.project_id
  AND w.deployment_id = e.deployment_id AND w.id = e.workflow_id
WHERE e.project_id = :project_id AND e.completed_at_us >= :from_us AND e.completed_at_us <= :to_us
  AND e.root_execution_id IS NULL AND (e.completed_at_us < :to_us OR e.id < :before)
  AND (:span_type{::TEXT} IS NULL OR COALESCE(w.type, 'workflow') = :span_type)
  AND (:name{::TEXT} IS NULL OR {INSTR|STRPOS}(COALESCE(w.type, 'workflow') || '.' || e.workflow_id, :name) > 0)
  AND (:failed{::BIGINT} IS NULL OR :failed = CASE WHEN e.phase = 'failed' THEN 1 ELSE 0 END)
  AND (SELECT t.trace_id FROM traces t WHERE t.project_id = e.project_id AND t.trace_id = REPLACE(e.id, '-', '')) IS NULL
ORDER BY e.completed_at_us DESC, e.id DESC LIMIT :limit;

-- name: root_spans
-- A root that continued after waits has several pieces.
SELECT name, CASE WHEN OCTET_LENGTH(body) <= :bytes_max THEN body END FROM spans
WHERE project_id = :project_id AND trace_id = :trace_id AND parent_span_id IS NULL ORDER BY started_at_us LIMIT :limit;

-- name: read_span
SELECT name, CASE WHEN OCTET_LENGTH(body) <= :bytes_max THEN body END FROM spans
WHERE project_id = :project_id AND trace_id = :trace_id AND span_id = :span_id;

-- name: span_sizes
SELECT OCTET_LENGTH(body) FROM spans WHERE project_id = :project_id AND trace_id = :trace_id ORDER BY span_id LIMIT :limit;

-- name: read_spans
-- Without values larger than `bytes_max`.
SELECT trace_id, span_id, parent_span_id, name, span_type, started_at_us, ended_at_us,
  CASE WHEN OCTET_LENGTH(body) <= :bytes_max THEN body END AS body
FROM spans WHERE project_id = :project_id AND trace_id = :trace_id ORDER BY span_id LIMIT :limit;

-- text: traced
{= brief}, parent_execution_id, root_execution_id, step_key,
  deployment_id, session_id, user_id, attempt, retry_count, error AS failure,
  CASE WHEN {= payload_size} <= :bytes_max THEN {= payload} END AS input,
  CASE WHEN {= result_size} <= :bytes_max THEN {= result} END AS output,
  CASE WHEN {= payload_size} > :bytes_max OR {= result_size} > :bytes_max OR OCTET_LENGTH(x.initial_state) > :bytes_max
    OR OCTET_LENGTH(x.final_state) > :bytes_max THEN 1 ELSE 0 END AS cut,
  COALESCE((SELECT w.type FROM workflows w WHERE w.project_id = executions.project_id
    AND w.deployment_id = executions.deployment_id AND w.id = executions.workflow_id), 'workflow') AS kind,
  CASE WHEN OCTET_LENGTH(x.initial_state) <= :bytes_max THEN x.initial_state END AS initial_state,
  CASE WHEN OCTET_LENGTH(x.final_state) <= :bytes_max THEN x.final_state END AS final_state

-- name: homes_of
-- The roots of executions, with the trace that their caller gave them.
SELECT e.id, COALESCE(e.root_execution_id, e.id), x.otel_traceparent
FROM executions e LEFT JOIN execution_extras x ON x.execution_id = COALESCE(e.root_execution_id, e.id)
WHERE e.project_id = :project_id
  AND e.id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))};

-- name: traced_execution
SELECT {= traced} FROM executions LEFT JOIN execution_extras x ON x.execution_id = executions.id
WHERE project_id = :project_id AND id = :id;

-- name: traced_below
SELECT {= traced} FROM executions LEFT JOIN execution_extras x ON x.execution_id = executions.id
WHERE project_id = :project_id AND root_execution_id = :id AND id > :after ORDER BY id LIMIT :limit;
