-- compatible: yes
-- What a worker said of the workflow's function, for people (JSON); NULL: nothing.
ALTER TABLE workflows ADD COLUMN described {blob};
