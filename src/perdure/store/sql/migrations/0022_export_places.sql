-- compatible: yes
-- Up to which execution ends were taken; and up to which they were looked at once more, when nothing of their time could be
-- committed any more. NULL: everything from two minutes before `ended_at_us` on is to be looked at, as the release before does
-- each time.
ALTER TABLE export_cursors ADD COLUMN ended_id TEXT NOT NULL DEFAULT '';
ALTER TABLE export_cursors ADD COLUMN looked_at_us INTEGER;
ALTER TABLE export_cursors ADD COLUMN looked_id TEXT;
