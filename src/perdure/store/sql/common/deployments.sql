-- Deployments, and the workflows of each.

-- name: current_deployment
SELECT current_deployment_id FROM projects WHERE id = :project_id;

-- name: lock_deployment
-- holds: deployment=id
SELECT push, retired_at_us FROM deployments WHERE project_id = :project_id AND id = :id {FOR UPDATE};

-- name: live_worker_of
SELECT id FROM workers WHERE project_id = :project_id AND deployment_id = :deployment_id
  AND (embedded = 1 OR lease_until_us > :now_us) ORDER BY id LIMIT 1;

-- name: upsert_deployment
-- holds: deployment=id
INSERT INTO deployments (project_id, id, created_at_us, registered_at_us, push)
VALUES (:project_id, :id, :now_us, :now_us, :push)
ON CONFLICT (project_id, id) DO UPDATE SET registered_at_us = excluded.registered_at_us, push = excluded.push,
  retired_at_us = NULL
RETURNING id;

-- name: adopt_any_early
-- picks: executions that were accepted before the project had a deployment
-- Push workers run any workflow, so it need not be registered.
UPDATE executions SET deployment_id = :deployment_id, gate = {= limits_gate}
WHERE project_id = :project_id AND phase = 'queued' AND deployment_id IS NULL RETURNING id;

-- name: forgotten_early
-- Executions that were accepted early, although their project now has a deployment for them.
SELECT e.project_id, d.id, d.push FROM executions e JOIN projects p ON p.id = e.project_id
  JOIN deployments d ON d.project_id = p.id AND d.id = p.current_deployment_id
WHERE e.deployment_id IS NULL AND e.phase = 'queued' AND (d.push = 1 OR EXISTS (SELECT 1 FROM workflows w
  WHERE w.project_id = e.project_id AND w.deployment_id = d.id AND w.id = e.workflow_id))
GROUP BY e.project_id, d.id, d.push;

-- name: use_deployment
-- holds: project=project_id
UPDATE projects SET current_deployment_id = :deployment_id WHERE id = :project_id RETURNING id;

-- name: supersede_deployments
-- picks: a deployment that becomes current, and the one that was
UPDATE deployments SET superseded_at_us = CASE WHEN id = :deployment_id THEN NULL ELSE :now_us{::BIGINT} END
WHERE project_id = :project_id AND (id = :deployment_id
  OR id = (SELECT current_deployment_id FROM projects WHERE id = :project_id))
RETURNING id;

-- text: deployment
d.id, d.project_id, CASE WHEN d.retired_at_us IS NULL THEN 'active' ELSE 'retired' END AS status, d.created_at_us,
  CASE WHEN p.current_deployment_id = d.id THEN 1 ELSE 0 END AS current,
  CASE WHEN d.push = 1 THEN 'push' ELSE 'native' END AS served_by, d.registered_at_us, d.superseded_at_us
FROM deployments d JOIN projects p ON p.id = d.project_id

-- name: read_deployment
SELECT {= deployment} WHERE d.project_id = :project_id AND d.id = :id;

-- name: workflow_ages
SELECT id, created_at_us FROM workflows WHERE project_id = :project_id AND deployment_id = :deployment_id ORDER BY id;

-- name: delete_workflows
-- holds: deployment=deployment_id
DELETE FROM workflows WHERE project_id = :project_id AND deployment_id = :deployment_id;

-- name: insert_workflow
-- holds: deployment=deployment_id
INSERT INTO workflows (project_id, deployment_id, id, queue_name, output_schema_name, run_timeout_seconds, wake_on_cancel,
  type, trigger_on_event, scheduled, created_at_us, searchable, described, input_check)
VALUES (:project_id, :deployment_id, :id, :queue_name, :output_schema_name, :run_timeout_seconds, :wake_on_cancel,
  :type, :trigger_on_event, :scheduled, :now_us, :searchable, :described, :input_check);

-- name: put_workflow
-- holds: deployment=deployment_id
-- A workflow of a deployment of push workers, which register one by one.
INSERT INTO workflows (project_id, deployment_id, id, wake_on_cancel, type, trigger_on_event, scheduled, created_at_us)
VALUES (:project_id, :deployment_id, :id, 0, :type, :trigger_on_event, :scheduled, :now_us)
ON CONFLICT (project_id, deployment_id, id) DO UPDATE SET type = excluded.type,
  trigger_on_event = excluded.trigger_on_event, scheduled = excluded.scheduled;

-- text: workflow
w.id, w.deployment_id, w.type, w.trigger_on_event, w.scheduled,
  COALESCE(NULLIF(w.created_at_us, 0), d.created_at_us) AS created_at_us, COALESCE(w.queue_name, w.id) AS queue_name
FROM workflows w {CROSS |}JOIN deployments d ON d.project_id = w.project_id AND d.id = w.deployment_id AND d.retired_at_us IS NULL

-- name: list_workflows
-- CROSS keeps SQLite to the index by name.
SELECT {= workflow}
WHERE w.project_id = :project_id AND w.type = 'workflow' AND w.id >= :after_id AND (w.id > :after_id
  OR COALESCE(NULLIF(w.created_at_us, 0), d.created_at_us) < :before_us
  OR COALESCE(NULLIF(w.created_at_us, 0), d.created_at_us) = :before_us AND w.deployment_id > :after)
ORDER BY w.id, COALESCE(NULLIF(w.created_at_us, 0), d.created_at_us) DESC, w.deployment_id LIMIT :limit OFFSET :offset;

-- name: list_startable
SELECT {= workflow}
WHERE w.project_id = :project_id AND w.type IN ('workflow', 'agent') AND w.id > :after_id
ORDER BY w.id, COALESCE(NULLIF(w.created_at_us, 0), d.created_at_us) DESC, w.deployment_id LIMIT :limit;

-- name: workflow_names
-- By a seek for each.
WITH RECURSIVE rows (id) AS (
  SELECT (SELECT w.id FROM workflows w WHERE w.project_id = :project_id ORDER BY w.id LIMIT 1)
  UNION ALL
  SELECT (SELECT w.id FROM workflows w WHERE w.project_id = :project_id AND w.id > rows.id ORDER BY w.id LIMIT 1)
  FROM rows WHERE rows.id IS NOT NULL)
SELECT id FROM rows WHERE id IS NOT NULL LIMIT :limit;

-- name: read_startable
SELECT {= workflow}
WHERE w.project_id = :project_id AND w.id = :workflow_id AND w.type IN ('workflow', 'agent')
ORDER BY COALESCE(NULLIF(w.created_at_us, 0), d.created_at_us) DESC, w.deployment_id LIMIT 1;

-- name: read_workflow
-- Without a deployment: the newest.
SELECT {= workflow}
WHERE w.project_id = :project_id AND w.id = :workflow_id AND w.type = 'workflow'
  AND (:deployment_id{::TEXT} IS NULL OR w.deployment_id = :deployment_id)
ORDER BY COALESCE(NULLIF(w.created_at_us, 0), d.created_at_us) DESC, w.deployment_id LIMIT 1;

-- name: read_description
SELECT described FROM workflows WHERE project_id = :project_id AND deployment_id = :deployment_id AND id = :id;

-- name: neighbouring_workflows
-- The names before and after an unknown one.
SELECT id FROM (SELECT id FROM workflows WHERE project_id = :project_id AND deployment_id = :deployment_id
  AND id < :workflow_id ORDER BY id DESC LIMIT :limit) AS found
UNION ALL SELECT id FROM (SELECT id FROM workflows WHERE project_id = :project_id AND deployment_id = :deployment_id
  AND id > :workflow_id ORDER BY id LIMIT :limit) AS found;

-- text: target
d.id AS deployment_id, w.id AS registered, COALESCE(:queue_name, w.queue_name, :workflow_id) AS queue_name,
  w.output_schema_name, w.run_timeout_seconds, w.wake_on_cancel, w.input_check, q.name AS queue,
  COALESCE(CASE WHEN (SELECT 1 FROM pauses z WHERE z.project_id = p.id LIMIT 1) IS NOT NULL THEN COALESCE(
    (SELECT z.number FROM pauses z WHERE z.project_id = p.id AND z.kind = 'deployment' AND z.name = d.id
      AND z.concurrency_key = '' AND z.state <> 'ending'),
    (SELECT z.number FROM pauses z WHERE z.project_id = p.id AND z.kind = 'workflow' AND z.name = :workflow_id
      AND z.concurrency_key = '' AND z.state <> 'ending'),
    (SELECT z.number FROM pauses z WHERE z.project_id = p.id AND z.kind = 'queue' AND z.name = COALESCE(:queue_name, w.queue_name, :workflow_id)
      AND z.concurrency_key = '' AND z.state <> 'ending')) END,
    CASE WHEN {= has_limits} THEN 1 ELSE 0 END) AS gate,
  (SELECT 1 FROM pauses z WHERE z.project_id = p.id AND z.kind = 'key' AND z.name = COALESCE(:queue_name, w.queue_name, :workflow_id)
    AND z.state <> 'ending' LIMIT 1) IS NOT NULL AS key_pauses, d.push,
  (SELECT 1 FROM shared_budgets s WHERE s.project_id = p.id LIMIT 1) IS NOT NULL AS shares_budget,
  CASE WHEN EXISTS (SELECT 1 FROM search_fields s WHERE s.project_id = p.id AND s.workflow_id = :workflow_id)
    THEN 1 ELSE 0 END AS searchable

-- text: target_place
projects p
LEFT JOIN deployments d ON d.project_id = p.id AND d.id = COALESCE(:deployment_id, p.current_deployment_id)
  AND d.retired_at_us IS NULL
LEFT JOIN workflows w ON w.project_id = p.id AND w.deployment_id = d.id AND w.id = :workflow_id
LEFT JOIN queues q ON q.project_id = p.id AND q.name = COALESCE(:queue_name, w.queue_name, :workflow_id)

-- name: start_target
-- The target of a new execution: its deployment (requested or current), and the workflow's registration there.
SELECT {= target}
FROM {= target_place}
WHERE p.id = :project_id;

-- name: dispatch_target
-- holds: waiting_claim=worker_id
-- start_target and check_waiting_claim together.
SELECT {= target}, o.project_id, o.deployment_id AS worker_deployment_id, o.python, o.embedded, o.anything,
  o.last_claim_id
FROM {= target_place}
LEFT JOIN (
  SELECT w.id, w.project_id, w.deployment_id, w.python, w.embedded, {= anything_ready} AS anything, w.last_claim_id
  FROM workers w WHERE w.id = :worker_id {FOR KEY SHARE OF w SKIP LOCKED}) o ON o.id = :worker_id
WHERE p.id = :project_id;

-- name: list_deployments
SELECT {= deployment}
WHERE d.project_id = :project_id AND (:retired = 1 OR d.retired_at_us IS NULL)
  AND (d.created_at_us < :before_us OR d.created_at_us = :before_us AND d.id > :after)
ORDER BY d.created_at_us DESC, d.id LIMIT :limit;

-- name: count_open_by_deployment
-- One branch per index of open executions, as in count_phases. COALESCE keeps SQLite from the index of all of a
-- project's executions when it looks for held ones.
SELECT deployment_id, phase, COUNT(*) FROM (
  SELECT deployment_id, phase FROM executions
  WHERE project_id = :project_id AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL
  UNION ALL SELECT deployment_id, phase FROM executions
  WHERE project_id = :project_id AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL
  UNION ALL SELECT deployment_id, phase FROM executions WHERE project_id = :project_id AND {= is_paused}
  UNION ALL SELECT deployment_id, phase FROM executions
  WHERE project_id = :project_id AND phase = 'queued' AND due_at_us IS NOT NULL
  UNION ALL SELECT deployment_id, phase FROM executions
  WHERE COALESCE(project_id, '') = :project_id AND phase IN ('running', 'cancelling')
  UNION ALL SELECT deployment_id, phase FROM executions WHERE project_id = :project_id AND phase IN ('waiting', 'blocked')
  UNION ALL SELECT deployment_id, phase FROM executions WHERE project_id = :project_id AND phase = 'held') AS open
WHERE deployment_id IS NOT NULL GROUP BY deployment_id, phase ORDER BY deployment_id, phase;

-- name: idle_of_deployment
-- What waits, and when the wait ends by itself.
SELECT e.id AS execution_id, e.workflow_id, e.key, e.due_at_us,
  (SELECT CASE WHEN w.topic IS NULL OR w.topic = 'workflow/' || e.workflow_id || '/' || e.id THEN 'answer' ELSE 'event' END
    FROM waits w WHERE w.execution_id = e.id AND w.state = 'open' ORDER BY w.opened_at_us, w.key LIMIT 1) AS waits_for
FROM executions e WHERE e.project_id = :project_id AND e.deployment_id = :deployment_id
  AND e.phase IN ('waiting', 'blocked') AND e.phase = 'waiting'
LIMIT :limit;

-- name: last_delayed_of_deployment
-- The delayed start that is due last. Turns wait until `beyond_us`.
SELECT e.id AS execution_id, e.workflow_id, e.key, e.due_at_us
FROM executions e WHERE e.project_id = :project_id AND e.deployment_id = :deployment_id AND e.phase = 'queued'
  AND e.due_at_us IS NOT NULL AND e.due_at_us < :beyond_us ORDER BY e.due_at_us DESC LIMIT 1;

-- name: count_live_workers
SELECT deployment_id, COUNT(*) FROM workers
WHERE project_id = :project_id AND (embedded = 1 OR lease_until_us > :now_us) GROUP BY deployment_id;

-- name: any_open_of_deployment
-- One open execution, if any, by the indexes of open ones.
SELECT id, phase FROM (
  SELECT id, phase FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
    AND phase IN ('waiting', 'blocked')
  UNION ALL SELECT id, phase FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
    AND phase = 'held'
  UNION ALL SELECT id, phase FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
    AND phase = 'queued' AND gate = 0 AND due_at_us IS NULL
  UNION ALL SELECT id, phase FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
    AND phase = 'queued' AND gate = 1 AND due_at_us IS NULL
  UNION ALL SELECT id, phase FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
    AND {= is_paused}
  UNION ALL SELECT id, phase FROM executions WHERE project_id = :project_id AND deployment_id = :deployment_id
    AND phase = 'queued' AND due_at_us IS NOT NULL
  UNION ALL SELECT id, phase FROM executions WHERE COALESCE(project_id, '') = :project_id
    AND deployment_id = :deployment_id AND phase IN ('running', 'cancelling')) AS open
LIMIT 1;

-- name: retire_deployment
-- holds: deployment=id
UPDATE deployments SET retired_at_us = :now_us WHERE project_id = :project_id AND id = :id RETURNING id;
