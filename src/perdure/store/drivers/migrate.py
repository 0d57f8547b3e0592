"""Numbered migrations, forward only.

A migration with `-- compatible: yes` only adds tables, indexes and optional columns. The release before works with the
new schema, so servers can be upgraded one by one, and rolled back.
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


FIRST: Final = 100
"""Builds before the first release had the schemas 1 to 99."""


class Migration(NamedTuple):
    number: int
    name: str
    sql: str
    compatible: bool


class Schema(NamedTuple):
    """`number` is 0 before the first migration. `least` is the last incompatible migration: a release must know it."""

    number: int
    least: int

    def refusal(self, known: Sequence[Migration]) -> str | None:
        newest = known[-1].number
        if 0 < self.number < FIRST:
            return (
                f"has schema {self.number}: a build before the first release made it, and no release can use it. "
                "It stays as it is. Name another file or database to start a new store."
            )
        if self.number > newest and self.least > newest:
            return f"has schema {self.number}, this release knows up to {newest}; install a newer Perdure."
        return None

    def pending(self, known: Sequence[Migration]) -> Sequence[Migration]:
        return [migration for migration in known if migration.number > self.number]

    def after(self, applied: Sequence[Migration]) -> "Schema":
        return Schema(
            max(self.number, *(migration.number for migration in applied)),
            max(self.least, *(0 if migration.compatible else migration.number for migration in applied)),
        )


@cache
def migrations(dialect: str) -> Sequence[Migration]:
    found: list[Migration] = []
    for file in (files("perdure.store") / "sql" / "migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match is None:
            continue
        text = file.read_text(encoding="utf-8")
        for word, meaning in WORDS[dialect].items():
            text = text.replace("{" + word + "}", meaning)
        if dialect == "postgres":
            # Ids and keys compare by bytes in any database language.
            text = re.sub(r"\bTEXT\b", 'TEXT COLLATE "C"', re.sub(r"\bINTEGER\b", "BIGINT", text))
        compatible = re.search(r"^-- compatible: yes$", text, flags=re.MULTILINE) is not None
        found.append(Migration(int(match[1]), match[2], text, compatible))
    found.sort()
    if [migration.number for migration in found] != list(range(FIRST, FIRST + len(found))):
        raise ValueError(f"Migrations are not numbered from {FIRST} on without gaps.")
    return found


def split_statements(sql: str) -> list[str]:
    text = re.sub(r"^\s*--.*$", "", sql, flags=re.MULTILINE)
    return [part.strip() for part in text.split(";") if part.strip()]


def planner_statistics() -> str:
    return (files("perdure.store") / "sql" / "sqlite_statistics.sql").read_text(encoding="utf-8")


def postgres_settings() -> str:
    return (files("perdure.store") / "sql" / "postgres_settings.sql").read_text(encoding="utf-8")
