-- compatible: yes
-- Since when no execution of the queue is handed out; NULL: it is not paused.
ALTER TABLE queues ADD COLUMN paused_at_us INTEGER;
