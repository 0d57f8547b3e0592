-- Slack apps of projects.

-- name: bind_slack_app
-- holds: slack_app=api_app_id
INSERT INTO slack_apps (project_id, api_app_id, bound_at_us) VALUES (:project_id, :api_app_id, :now_us)
ON CONFLICT (project_id, api_app_id) DO UPDATE SET bound_at_us = excluded.bound_at_us;

-- name: release_slack_app
-- holds: slack_app=api_app_id
DELETE FROM slack_apps WHERE api_app_id = :api_app_id AND project_id = :project_id RETURNING api_app_id;

-- name: list_slack_apps
SELECT api_app_id, bound_at_us FROM slack_apps WHERE project_id = :project_id ORDER BY api_app_id LIMIT :limit;
