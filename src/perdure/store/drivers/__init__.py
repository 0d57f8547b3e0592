"""SQLite and PostgreSQL run verbs in transactions."""
