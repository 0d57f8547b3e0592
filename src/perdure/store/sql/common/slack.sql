-- Slack apps: which project each is bound to.

-- name: bind_slack_app
-- holds: slack_app=api_app_id
INSERT INTO slack_apps (api_app_id, project_id, bound_at_us) VALUES (:api_app_id, :project_id, :now_us)
ON CONFLICT (api_app_id) DO UPDATE SET project_id = excluded.project_id, bound_at_us = excluded.bound_at_us;

-- name: list_slack_apps
SELECT api_app_id, bound_at_us FROM slack_apps WHERE project_id = :project_id ORDER BY api_app_id LIMIT :limit;
