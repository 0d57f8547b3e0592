-- compatible: yes
-- Names the check of inputs at the start; equal checks have equal names. NULL: inputs are not checked.
ALTER TABLE workflows ADD COLUMN input_check TEXT;
