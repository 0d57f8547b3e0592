"""Numbered migrations, forward only. A file of an unknown or newer version is refused, never guessed at."""

import re
from importlib.resources import files
from typing import Final, NamedTuple

WORDS: Final[dict[str, dict[str, str]]] = {
    "sqlite": {"text": "TEXT", "blob": "BLOB", "table": "STRICT, WITHOUT ROWID", "postgres_only": "-- "},
    "postgres": {"text": "TEXT", "blob": "BYTEA", "table": "", "postgres_only": ""},
}
"""The words of a migration that differ by database."""


class Migration(NamedTuple):
    """One step from schema `number - 1` to `number`."""

    number: int
    name: str
    sql: str


def migrations(dialect: str) -> list[Migration]:
    """All migrations in order, in the words of a dialect."""
    found: list[Migration] = []
    for file in (files("perdure.store") / "sql" / "migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match is None:
            continue
        text = file.read_text(encoding="utf-8")
        for word, meaning in WORDS[dialect].items():
            text = text.replace("{" + word + "}", meaning)
        if dialect == "postgres":
            # Ids and keys are compared byte by byte, whatever the language of the database.
            text = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', re.sub(r"\bINTEGER\b", "BIGINT", text))
        found.append(Migration(int(match[1]), match[2], text))
    found.sort()
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"Migrations are not numbered 1 to {len(found)} without gaps.")
    return found


def statements(sql: str) -> list[str]:
    """The single statements of a migration."""
    text = re.sub(r"^\s*--.*$", "", sql, flags=re.MULTILINE)
    return [part.strip() for part in text.split(";") if part.strip()]


def planner_statistics() -> str:
    """What SQLite's planner is told about the tables, once they are made."""
    return (files("perdure.store") / "sql" / "sqlite_statistics.sql").read_text(encoding="utf-8")


def postgres_settings() -> str:
    """What PostgreSQL is told about the tables, once they are made."""
    return (files("perdure.store") / "sql" / "postgres_settings.sql").read_text(encoding="utf-8")
