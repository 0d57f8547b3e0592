"""The same story seen from the user's process: run a workflow, replay its journal, report its outcomes."""
