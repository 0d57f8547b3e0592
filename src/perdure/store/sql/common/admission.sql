-- The rules of admission: conditions on a queued row of `executions`, for a worker of :deployment_id with :python and
-- :protocol. A claim takes rows for which all hold, by the text `admitted`. `verdicts` gives each as a column of its name,
-- in this order. The room under limits is counted for a whole group instead: `group_room`, `verbs.admission`.

-- rule: start_time
due_at_us IS NULL

-- rule: deployment
deployment_id = :deployment_id

-- rule: python
python IS NULL OR python = :python

-- rule: protocol
needs_protocol IS NULL OR needs_protocol <= :protocol
