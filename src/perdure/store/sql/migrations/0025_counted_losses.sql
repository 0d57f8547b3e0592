-- compatible: yes
-- Losses that count towards POISONED, by the worker that was lost. If that worker says later that it is alive, its
-- losses are taken back.
CREATE TABLE counted_losses (
  worker_id {text} NOT NULL,
  project_id {text} NOT NULL,
  execution_id {text} NOT NULL,
  lost_at_us INTEGER NOT NULL,
  PRIMARY KEY (worker_id, project_id, execution_id)
) {table};
CREATE INDEX counted_losses_by_age ON counted_losses (lost_at_us);
