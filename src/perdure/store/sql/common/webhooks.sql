-- Webhooks and their deliveries.

-- text: delivery
execution_id, NULLIF(webhook_id, '') AS webhook_id, url, state, earlier_tries + tries AS tries, next_at_us, created_at_us,
  tried_at_us, status, answer

-- name: list_webhooks
SELECT {columns Webhook} FROM webhooks WHERE project_id = :project_id ORDER BY id DESC;

-- name: insert_webhook
-- holds: project=project_id
INSERT INTO webhooks (project_id, host, {columns Webhook}) VALUES (:project_id, :host, {values Webhook});

-- name: delete_webhook
-- holds: project=project_id
DELETE FROM webhooks WHERE project_id = :project_id AND id = :id RETURNING id;

-- name: count_webhooks
-- holds: project=project_id
UPDATE projects SET webhooks = (SELECT COUNT(*) FROM webhooks w WHERE w.project_id = projects.id)
WHERE id = :project_id RETURNING webhooks;

-- name: insert_execution_webhook
-- holds: execution=execution_id
INSERT INTO execution_webhooks (execution_id, url, host) VALUES (:execution_id, :url, :host);

-- name: delete_execution_webhooks
-- holds: execution=id
DELETE FROM execution_webhooks WHERE execution_id = :id;

-- name: insert_deliveries
-- holds: execution=execution_id
-- The recipients of an end: the project's URLs for a root, and the execution's own.
INSERT INTO deliveries (execution_id, webhook_id, project_id, url, host, state, tries, next_at_us, created_at_us)
SELECT :execution_id, w.id, :project_id, w.url, w.host, 'pending', 0, :now_us{::BIGINT}, :now_us FROM webhooks w
WHERE w.project_id = :project_id AND :is_root{::BIGINT} = 1 AND (w.workflow_id IS NULL OR w.workflow_id = :workflow_id)
UNION ALL SELECT :execution_id, '', :project_id, x.url, x.host, 'pending', 0, :now_us, :now_us FROM execution_webhooks x
WHERE x.execution_id = :execution_id;

-- name: take_deliveries
-- picks: due deliveries, except of busy hosts
-- `next_at_us` is how long they are ours, so messages of a server that dies become due again.
WITH due AS MATERIALIZED (
  SELECT execution_id, webhook_id FROM deliveries WHERE state = 'pending' AND next_at_us <= :now_us
    AND host {NOT IN (SELECT value FROM json_each(:busy))|<> ALL(ARRAY(SELECT json_array_elements_text(:busy::JSON)))}
  ORDER BY next_at_us LIMIT :limit {FOR UPDATE SKIP LOCKED})
UPDATE deliveries SET tries = tries + 1, next_at_us = :until_us, tried_at_us = :now_us, status = NULL, answer = NULL
WHERE state = 'pending' AND next_at_us <= :now_us AND (execution_id, webhook_id) IN (SELECT execution_id, webhook_id FROM due)
RETURNING project_id, execution_id, webhook_id, url, host, tries;

-- name: next_delivery
SELECT next_at_us FROM deliveries WHERE state = 'pending' ORDER BY next_at_us LIMIT 1;

-- name: settle_delivery
-- holds: execution=execution_id
UPDATE deliveries SET state = :state, next_at_us = :next_at_us, status = :status, answer = :answer
WHERE execution_id = :execution_id AND webhook_id = :webhook_id AND state = 'pending' AND tries = :tries RETURNING state;

-- name: postpone_delivery
-- holds: execution=execution_id
-- It was taken and not tried.
UPDATE deliveries SET tries = tries - 1, next_at_us = :next_at_us
WHERE execution_id = :execution_id AND webhook_id = :webhook_id AND state = 'pending' AND tries = :tries;

-- name: redeliver
-- holds: execution=execution_id
-- It gets all its tries again; earlier ones still count in what people see.
UPDATE deliveries SET state = 'pending', earlier_tries = earlier_tries + tries, tries = 0, next_at_us = :now_us
WHERE project_id = :project_id AND execution_id = :execution_id AND webhook_id = :webhook_id RETURNING execution_id;

-- name: read_delivery
SELECT {= delivery} FROM deliveries
WHERE project_id = :project_id AND execution_id = :execution_id AND webhook_id = :webhook_id;

-- name: list_deliveries
SELECT {= delivery} FROM deliveries
WHERE project_id = :project_id AND (created_at_us, execution_id, webhook_id) < (:before_us, :before_id, :before_webhook)
  AND (:state{::TEXT} IS NULL OR state = :state) AND (:webhook_id{::TEXT} IS NULL OR webhook_id = :webhook_id)
ORDER BY created_at_us DESC, execution_id DESC, deliveries.webhook_id DESC LIMIT :limit;

-- name: deliveries_of
-- `project_id || ''` is one that no index knows: as long as there are no statistics PostgreSQL takes the project's index.
SELECT {= delivery} FROM deliveries
WHERE execution_id = :execution_id AND project_id || '' = :project_id ORDER BY deliveries.webhook_id;

-- name: delete_deliveries
-- holds: execution=id
DELETE FROM deliveries WHERE execution_id = :id;
