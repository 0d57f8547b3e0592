-- compatible: yes
-- What a project's calls out are signed with. A secret that is being replaced goes on beside its successor for a while.
CREATE TABLE signing_secrets (
  project_id {text} PRIMARY KEY,
  secret TEXT NOT NULL,
  -- What links to pages are signed with: nobody but the server knows it.
  links TEXT NOT NULL,
  made_at_us INTEGER NOT NULL,
  previous TEXT,
  previous_until_us INTEGER,
  CONSTRAINT previous_ends CHECK ((previous IS NULL) = (previous_until_us IS NULL))
) {table};
