-- The rules of admission: conditions on a queued row of `executions`, for a worker of :deployment_id with :python and
-- :protocol. A claim takes rows for which all hold, by the text `admitted`. `verdicts` gives each as a column of its name,
-- in this order. The room under limits is counted for a whole group instead: `group_room`, `verbs.admission`.

-- text: no_pause
(SELECT 1 FROM pauses z WHERE z.project_id = :project_id LIMIT 1) IS NULL

-- rule: start_time
due_at_us IS NULL

-- rule: deployment
deployment_id = :deployment_id

-- rule: deployment_pause
{= no_pause} OR (SELECT 1 FROM pauses z WHERE z.project_id = :project_id AND z.kind = 'deployment'
    AND z.name = executions.deployment_id AND z.concurrency_key = '' AND z.state <> 'ending') IS NULL

-- rule: workflow_pause
{= no_pause} OR (SELECT 1 FROM pauses z WHERE z.project_id = :project_id AND z.kind = 'workflow'
    AND z.name = executions.workflow_id AND z.concurrency_key = '' AND z.state <> 'ending') IS NULL

-- rule: queue_pause
{= no_pause} OR (SELECT 1 FROM pauses z WHERE z.project_id = :project_id AND z.kind = 'queue'
    AND z.name = executions.queue_name AND z.concurrency_key = '' AND z.state <> 'ending') IS NULL

-- rule: key_pause
{= no_pause} OR (SELECT 1 FROM pauses z WHERE z.project_id = :project_id AND z.kind = 'key'
    AND z.name = executions.queue_name AND z.concurrency_key = executions.concurrency_key AND z.state <> 'ending') IS NULL

-- rule: releasing
gate <= 1

-- rule: python
python IS NULL OR python = :python

-- rule: protocol
needs_protocol IS NULL OR needs_protocol <= :protocol
