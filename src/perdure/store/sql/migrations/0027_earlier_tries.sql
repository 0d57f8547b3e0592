-- compatible: yes
-- How often a message was tried before it was sent again by request.
ALTER TABLE deliveries ADD COLUMN earlier_tries INTEGER NOT NULL DEFAULT 0;
