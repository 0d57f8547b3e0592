-- Texts for queries of several files. A large payload is a row of its own, and empty in `executions`.

-- text: payload
CASE WHEN OCTET_LENGTH(executions.payload) > 0 THEN executions.payload
    ELSE (SELECT x.payload FROM large_payloads x WHERE x.execution_id = executions.id) END

-- text: payload_size
CASE WHEN OCTET_LENGTH(executions.payload) > 0 THEN OCTET_LENGTH(executions.payload)
    ELSE (SELECT OCTET_LENGTH(x.payload) FROM large_payloads x WHERE x.execution_id = executions.id) END

-- text: anything_ready
EXISTS (SELECT 1 FROM executions e WHERE e.project_id = w.project_id AND e.deployment_id = w.deployment_id
    AND e.phase = 'queued' AND e.limited = 0 AND e.due_at_us IS NULL)

-- text: has_limits
q.concurrency_limit IS NOT NULL OR q.total_limit IS NOT NULL OR q.paused_at_us IS NOT NULL

-- text: room
CASE WHEN q.paused_at_us IS NULL THEN q.total_limit ELSE 0 END

-- text: time_is_ahead
moved_at_us - 60000000 > :now_us
