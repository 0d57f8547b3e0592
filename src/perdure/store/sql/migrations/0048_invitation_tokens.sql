-- compatible: yes
-- An invitation is accepted by its token; the e-mail proves nothing.
CREATE INDEX invitations_by_token ON invitations (token_hash);
