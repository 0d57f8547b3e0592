-- compatible: yes
-- 1: an answer has to name the question, since it could be meant for another one: the step asked something else before,
-- or was answered before it asked.
ALTER TABLE waits ADD COLUMN must_name INTEGER NOT NULL DEFAULT 0;
