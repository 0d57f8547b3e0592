-- compatible: yes
-- The JSON Schema of the answer that a question's code expects; NULL: its code named no type.
ALTER TABLE waits ADD COLUMN answer_schema {blob};
