"""Numbered migrations, forward only.

One that says `-- compatible: yes` leaves the schema such that the release before can go on with it: it adds tables,
indexes, and columns that may be left out, and changes nothing that is there. So servers can be upgraded one after the
other, and rolled back. A database keeps two numbers: that of its schema, and that of the oldest release that can work
with it, which is that of its last migration which is not compatible. What is newer than that is refused, never guessed
at.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple

WORDS: Final[dict[str, dict[str, str]]] = {
    "sqlite": {
        "text": "TEXT",
        "blob": "BLOB",
        "table": "STRICT, WITHOUT ROWID",
        "heap": "STRICT",
        "postgres_only": "-- ",
    },
    "postgres": {"text": "TEXT", "blob": "BYTEA", "table": "", "heap": "", "postgres_only": ""},
}
"""The words of a migration that differ by database."""


class Migration(NamedTuple):
    """One step from schema `number - 1` to `number`."""

    number: int
    name: str
    sql: str
    compatible: bool
    """Whether releases that know nothing of it can go on."""


class Schema(NamedTuple):
    """The schema of a database: its number (0: it has none yet), and the least that a release must know."""

    number: int
    least: int

    def too_new(self, known: int) -> str | None:
        """Why a release that knows so many migrations cannot work with it."""
        if self.number <= known or self.least <= known:
            return None
        return f"has schema {self.number}, this release knows up to {known}; install a newer Perdure."

    def after(self, applied: Sequence[Migration]) -> "Schema":
        """The schema when these migrations are done."""
        return Schema(
            max(self.number, *(migration.number for migration in applied)),
            max(self.least, *(0 if migration.compatible else migration.number for migration in applied)),
        )


@cache
def migrations(dialect: str) -> Sequence[Migration]:
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
        compatible = re.search(r"^-- compatible: yes$", text, flags=re.MULTILINE) is not None
        found.append(Migration(int(match[1]), match[2], text, compatible))
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
