-- compatible: yes
-- Since when there is a transcript: one that is begun again after it was erased is another one, whose entries have the same
-- numbers.
ALTER TABLE transcripts ADD COLUMN begun_at_us INTEGER NOT NULL DEFAULT 0;
