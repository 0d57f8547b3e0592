-- Finding executions. Lists show the newest first. A walk goes down an index of executions from a cursor; `…_floor` says
-- how far a bounded walk gets.

-- text: fits
(:phases{::TEXT} IS NULL OR {INSTR|STRPOS}(:phases, ' ' || phase || ' ') > 0)
  AND (:workflow_ids{::TEXT} IS NULL
    OR workflow_id {IN (SELECT value FROM json_each(:workflow_ids))|= ANY(ARRAY(SELECT json_array_elements_text(:workflow_ids::JSON)))})
  AND (:session_id{::TEXT} IS NULL OR session_id = :session_id OR id = :session_id)
  AND (:user_id{::TEXT} IS NULL OR user_id = :user_id)
  AND (:queue_names{::TEXT} IS NULL
    OR queue_name {IN (SELECT value FROM json_each(:queue_names))|= ANY(ARRAY(SELECT json_array_elements_text(:queue_names::JSON)))})
  AND (:batch_id{::TEXT} IS NULL OR batch_id = :batch_id)
  AND (:parent_execution_id{::TEXT} IS NULL OR parent_execution_id = :parent_execution_id)
  AND (:root_execution_id{::TEXT} IS NULL OR root_execution_id = :root_execution_id)
  AND (:deployment_ids{::TEXT} IS NULL
    OR deployment_id {IN (SELECT value FROM json_each(:deployment_ids))|= ANY(ARRAY(SELECT json_array_elements_text(:deployment_ids::JSON)))})
  AND (:forked_from{::TEXT} IS NULL OR forked_from = :forked_from)
  AND (:key{::TEXT} IS NULL OR key = :key)
  AND (:roots{::BIGINT} IS NULL OR CASE WHEN parent_execution_id IS NULL THEN 1 ELSE 0 END = :roots)
  AND (:retried{::BIGINT} IS NULL OR CASE WHEN retried_as IS NULL THEN 0 ELSE 1 END = :retried)
  AND (:tag_name{::TEXT} IS NULL OR EXISTS (SELECT 1 FROM execution_tags t WHERE t.execution_id = executions.id
    AND t.name = :tag_name AND (:tag_value{::TEXT} IS NULL OR t.value = :tag_value)))
  AND (:tags{::TEXT} IS NULL OR NOT EXISTS (
    SELECT 1 FROM {json_each(:tags) w|json_array_elements(:tags::JSON) w (value)} WHERE NOT EXISTS (
      SELECT 1 FROM execution_tags t WHERE t.execution_id = executions.id
        AND t.name = w.value ->> 0 AND t.value = w.value ->> 1)))
  AND (:key_part{::TEXT} IS NULL OR key BETWEEN :key_part AND :key_end OR EXISTS (SELECT 1 FROM search_terms t
    WHERE t.execution_id = executions.id AND t.term BETWEEN 'k:' || :key_part AND 'k:' || :key_end))
  AND (:q{::TEXT} IS NULL OR id BETWEEN :first_id AND :last_id OR key BETWEEN :q AND :q_end OR EXISTS (
    SELECT 1 FROM search_terms t WHERE t.execution_id = executions.id AND t.term BETWEEN 'k:' || :q AND 'k:' || :q_end))
  AND (:terms{::TEXT} IS NULL OR NOT EXISTS (
    SELECT 1 FROM {json_each(:terms) w|json_array_elements(:terms::JSON) w (value)} WHERE NOT EXISTS (
      SELECT 1 FROM search_terms t WHERE t.execution_id = executions.id
        AND t.term BETWEEN w.value ->> 0 AND w.value ->> 1)))
  AND (:not_workflow_ids{::TEXT} IS NULL
    OR workflow_id {NOT IN (SELECT value FROM json_each(:not_workflow_ids))|<> ALL(ARRAY(SELECT json_array_elements_text(:not_workflow_ids::JSON)))})
  AND (:not_queue_names{::TEXT} IS NULL
    OR queue_name {NOT IN (SELECT value FROM json_each(:not_queue_names))|<> ALL(ARRAY(SELECT json_array_elements_text(:not_queue_names::JSON)))})
  AND (:not_deployment_ids{::TEXT} IS NULL OR deployment_id IS NULL
    OR deployment_id {NOT IN (SELECT value FROM json_each(:not_deployment_ids))|<> ALL(ARRAY(SELECT json_array_elements_text(:not_deployment_ids::JSON)))})
  AND (:not_tag_name{::TEXT} IS NULL OR NOT EXISTS (SELECT 1 FROM execution_tags t WHERE t.execution_id = executions.id
    AND t.name = :not_tag_name AND (:not_tag_value{::TEXT} IS NULL OR t.value = :not_tag_value)))
  AND (:created_after_us{::BIGINT} IS NULL OR created_at_us >= :created_after_us)
  AND (:created_before_us{::BIGINT} IS NULL OR created_at_us < :created_before_us)

-- text: floor
ORDER BY id DESC LIMIT 1 OFFSET :depth

-- text: page
AND id >= :floor_id AND {= fits} ORDER BY id DESC LIMIT :limit

-- text: all
FROM executions WHERE project_id = :project_id AND id < :before

-- name: list_all
-- Like the other lists one text for all filters; NULL is no filter.
SELECT id {= all} {= page};

-- name: all_floor
SELECT id {= all} {= floor};

-- text: open
FROM executions WHERE project_id = :project_id AND workflow_id = :of_workflow AND completed_at_us IS NULL AND id < :before

-- name: list_open
SELECT id {= open} {= page};

-- name: open_floor
SELECT id {= open} {= floor};

-- text: ended_in
FROM executions WHERE project_id = :project_id AND workflow_id = :of_workflow AND phase = :of_phase
  AND completed_at_us IS NOT NULL AND id < :before

-- name: list_ended
SELECT id {= ended_in} {= page};

-- name: ended_in_floor
SELECT id {= ended_in} {= floor};

-- text: failed
FROM executions WHERE project_id = :project_id AND phase = 'failed' AND id < :before

-- name: list_failed
SELECT id {= failed} {= page};

-- name: failed_floor
SELECT id {= failed} {= floor};

-- text: cancelled
FROM executions WHERE project_id = :project_id AND phase = 'cancelled' AND id < :before

-- name: list_cancelled
SELECT id {= cancelled} {= page};

-- name: cancelled_floor
SELECT id {= cancelled} {= floor};

-- text: of_queue
FROM executions WHERE project_id = :project_id AND queue_name = :queue_name AND queue_name <> workflow_id AND id < :before

-- name: list_of_queue
SELECT id {= of_queue} {= page};

-- name: of_queue_floor
SELECT id {= of_queue} {= floor};

-- text: of_session
FROM executions WHERE project_id = :project_id AND session_id = :session_id AND id < :before

-- name: list_of_session
SELECT id {= of_session} {= page};

-- name: of_session_floor
SELECT id {= of_session} {= floor};

-- text: head_of_session
FROM executions WHERE project_id = :project_id AND id = :session_id AND (session_id IS NULL OR session_id <> :session_id)
  AND id < :before

-- name: list_head_of_session
-- The execution that a session is named after.
SELECT id {= head_of_session} {= page};

-- name: head_of_session_floor
SELECT id {= head_of_session} {= floor};

-- text: of_user
FROM executions WHERE project_id = :project_id AND user_id = :user_id AND id < :before

-- name: list_of_user
SELECT id {= of_user} {= page};

-- name: of_user_floor
SELECT id {= of_user} {= floor};

-- text: of_batch
FROM executions WHERE project_id = :project_id AND batch_id = :batch_id AND id < :before

-- name: list_of_batch
SELECT id {= of_batch} {= page};

-- name: of_batch_floor
SELECT id {= of_batch} {= floor};

-- text: of_parent
FROM executions WHERE project_id = :project_id AND parent_execution_id = :parent_execution_id AND id < :before

-- name: list_of_parent
SELECT id {= of_parent} {= page};

-- name: of_parent_floor
SELECT id {= of_parent} {= floor};

-- text: of_root
FROM executions WHERE project_id = :project_id AND root_execution_id = :root_execution_id AND id < :before

-- name: list_of_root
SELECT id {= of_root} {= page};

-- name: of_root_floor
SELECT id {= of_root} {= floor};

-- text: of_source
FROM executions WHERE project_id = :project_id AND forked_from = :forked_from AND id < :before

-- name: list_of_source
SELECT id {= of_source} {= page};

-- name: of_source_floor
SELECT id {= of_source} {= floor};

-- name: list_tagged
SELECT g.execution_id FROM execution_tags g JOIN executions ON executions.project_id = g.project_id
  AND executions.id = g.execution_id
WHERE g.project_id = :project_id AND g.name = :tag_name AND g.value = :tag_value AND g.execution_id < :before
  AND g.execution_id >= :floor_id AND {= fits}
ORDER BY g.execution_id DESC LIMIT :limit;

-- name: tagged_floor
SELECT execution_id FROM execution_tags
WHERE project_id = :project_id AND name = :tag_name AND value = :tag_value AND execution_id < :before
ORDER BY execution_id DESC LIMIT 1 OFFSET :depth;

-- name: insert_term
-- holds: execution=execution_id
-- bulk:
INSERT INTO search_terms (project_id, term, execution_id) VALUES (:project_id, :term, :execution_id);

-- name: add_term
-- holds: execution=execution_id
-- For an execution that may have the term.
INSERT INTO search_terms (project_id, term, execution_id) VALUES (:project_id, :term, :execution_id)
ON CONFLICT (project_id, term, execution_id) DO NOTHING;

-- name: put_search_field
-- holds: workflow=workflow_id
-- The update waits for a transaction that drops the field.
INSERT INTO search_fields (project_id, workflow_id, field, declared_at_us, place)
VALUES (:project_id, :workflow_id, :field, :now_us, '~')
ON CONFLICT (project_id, workflow_id, field) DO UPDATE SET field = excluded.field;

-- name: drop_search_fields
-- picks: fields that no deployment declares any more
DELETE FROM search_fields WHERE project_id = :project_id AND NOT EXISTS (SELECT 1 FROM workflows w
  WHERE w.project_id = search_fields.project_id AND w.id = search_fields.workflow_id
    AND {INSTR|STRPOS}(w.searchable, '"' || search_fields.field || '"') > 0);

-- name: search_fields_of
SELECT field FROM search_fields WHERE project_id = :project_id AND workflow_id = :workflow_id ORDER BY field;

-- name: find_search_field
-- A field by workflow, and from where on older executions lack it.
SELECT workflow_id, place FROM search_fields WHERE project_id = :project_id AND field = :field
  AND (:workflow_id{::TEXT} IS NULL OR workflow_id = :workflow_id);

-- name: known_search_fields
SELECT field FROM search_fields WHERE project_id = :project_id GROUP BY field ORDER BY field LIMIT :limit;

-- name: next_search_field
-- picks: a field that older executions lack
SELECT project_id, workflow_id, field, place FROM search_fields WHERE place IS NOT NULL AND declared_at_us <= :before_us
ORDER BY declared_at_us LIMIT 1 {FOR UPDATE SKIP LOCKED};

-- name: move_search_field
-- holds: workflow=workflow_id
UPDATE search_fields SET place = :place
WHERE project_id = :project_id AND workflow_id = :workflow_id AND field = :field;

-- name: documents_of
-- picks: executions of a list
-- Keeps them from being deleted.
SELECT id, {= payload} AS payload, {= result} AS result FROM executions WHERE project_id = :project_id
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
{FOR KEY SHARE OF executions};

-- text: by_end
FROM executions WHERE project_id = :project_id AND completed_at_us IS NOT NULL
  AND (completed_at_us, id) < (:below_us, :before)

-- text: newest_end
ORDER BY completed_at_us DESC, id DESC LIMIT

-- name: list_by_end
SELECT id, completed_at_us {= by_end} AND (completed_at_us, id) >= (:floor_us, :floor_id) AND {= fits}
{= newest_end} :limit;

-- name: by_end_floor
SELECT id, completed_at_us {= by_end} {= newest_end} 1 OFFSET :depth;

-- name: ends_among
SELECT id, completed_at_us FROM executions WHERE project_id = :project_id AND completed_at_us IS NOT NULL
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))};

-- name: list_among
-- Of these ids, those that fit.
SELECT id FROM executions WHERE project_id = :project_id
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
  AND {= fits} ORDER BY id DESC;

-- name: with_key
-- Executions with keys of a range, in no order of theirs; so are the next four.
SELECT id FROM executions WHERE project_id = :project_id AND key BETWEEN :key_from AND :key_to
  AND retried_as IS NULL AND id < :before LIMIT :limit;

-- name: with_retried_key
SELECT id FROM executions WHERE project_id = :project_id AND key BETWEEN :key_from AND :key_to
  AND retried_as IS NOT NULL AND id < :before LIMIT :limit;

-- name: with_term
SELECT execution_id FROM search_terms WHERE project_id = :project_id AND term BETWEEN :term_from AND :term_to
  AND execution_id < :before LIMIT :limit;

-- name: with_id
SELECT id FROM executions WHERE project_id = :project_id AND id >= :id_from
  AND id < {MIN|LEAST}(:id_to, :before) LIMIT :limit;

-- name: with_tag
SELECT execution_id FROM execution_tags WHERE project_id = :project_id AND name = :tag_name AND execution_id < :before
LIMIT :limit;

-- name: open_workflows
-- The workflows of open executions, by a seek for each.
WITH RECURSIVE rows (id) AS (
  SELECT (SELECT workflow_id FROM executions WHERE project_id = :project_id AND completed_at_us IS NULL
    ORDER BY workflow_id LIMIT 1)
  UNION ALL
  SELECT (SELECT e.workflow_id FROM executions e WHERE e.project_id = :project_id AND e.completed_at_us IS NULL
    AND e.workflow_id > rows.id ORDER BY e.workflow_id LIMIT 1) FROM rows WHERE rows.id IS NOT NULL)
SELECT id FROM rows WHERE id IS NOT NULL LIMIT :limit;

-- name: ended_workflows
WITH RECURSIVE rows (id) AS (
  SELECT (SELECT workflow_id FROM executions WHERE project_id = :project_id AND completed_at_us IS NOT NULL
    ORDER BY workflow_id LIMIT 1)
  UNION ALL
  SELECT (SELECT e.workflow_id FROM executions e WHERE e.project_id = :project_id AND e.completed_at_us IS NOT NULL
    AND e.workflow_id > rows.id ORDER BY e.workflow_id LIMIT 1) FROM rows WHERE rows.id IS NOT NULL)
SELECT id FROM rows WHERE id IS NOT NULL LIMIT :limit;

-- name: created_below
-- When the newest execution with a smaller id was created.
SELECT created_at_us FROM executions WHERE project_id = :project_id AND id < :id ORDER BY id DESC LIMIT 1;

-- name: created_from
-- When the oldest execution with this id or a greater one was created.
SELECT created_at_us FROM executions WHERE project_id = :project_id AND id >= :id ORDER BY id LIMIT 1;

-- name: sizes_of
SELECT id, {= payload_size} + COALESCE({= result_size}, 0) FROM executions WHERE project_id = :project_id
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))} ORDER BY id DESC;

-- text: among
FROM executions WHERE project_id = :project_id
  AND id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}

-- name: matched_executions
SELECT id, workflow_id, deployment_id, phase, queue_name, user_id, COALESCE(session_id, id) AS session_id, batch_id, created_at_us,
  completed_at_us {= among};

-- name: matched_failures
SELECT id, workflow_id, deployment_id, phase, COALESCE(completed_at_us, created_at_us) AS at_us, error {= among} AND phase = 'failed';

-- name: matched_tags
SELECT name || '=' || value, COUNT(*) FROM execution_tags
WHERE execution_id {IN (SELECT value FROM json_each(:ids))|= ANY(ARRAY(SELECT json_array_elements_text(:ids::JSON)))}
GROUP BY name, value;
