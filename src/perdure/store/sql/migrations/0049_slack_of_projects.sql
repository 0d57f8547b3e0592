-- compatible: yes
-- An app's name proves nothing, so each project has names of its own. Only servers of the release before use `slack_apps`.
CREATE TABLE project_slack_apps (
  project_id {text} NOT NULL,
  api_app_id {text} NOT NULL,
  bound_at_us INTEGER NOT NULL,
  PRIMARY KEY (project_id, api_app_id)
) {table};
INSERT INTO project_slack_apps (project_id, api_app_id, bound_at_us) SELECT project_id, api_app_id, bound_at_us FROM slack_apps;
