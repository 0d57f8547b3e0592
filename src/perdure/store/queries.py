"""Loads the named SQL. A query is text in `sql/` under a line `-- name: …`; there is no SQL in Python.

Both databases run the same text, in `sql/common/` by noun. Where a word must differ it says so in place: `{a|b}` is
`a` on SQLite and `b` on PostgreSQL, `{b}` is said on PostgreSQL only: row locks, which SQLite's one writer does not
need, and casts. What differs by more than a word stands in `sqlite.sql` and `postgres.sql`.

What several queries of a file say alike stands once, under a line `-- text: …`, and is said by `{= …}`; what those of
several files do, in `common/shared.sql`. `{columns X}` and `{values X}` list the columns of a record
(`store/records.py`).

Header lines that the loader enforces: every statement that writes says which rows it touches, `-- holds: table=value`
when its arguments name them or `-- picks: …` when a predicate chooses them. Drivers that run many verbs in one
transaction need that; a statement without it is refused at start. A look that a verb decides by says what it holds,
too. `-- effect: none` stands at a write that only locks. `-- bulk: …` asks for a second text, for PostgreSQL, that
takes many rows of values at once, and names those that are no texts: `-- bulk: now_us seq; bytes value`.
`-- answer: how many` says that of the answer only the number of rows counts: for RETURNING SQLite makes a table, which
costs as much as the change. Asked with many rows of values, it answers with the value that names what it holds for each
row that it changed. `-- late: table` stands at rows that nothing but looks at that table needs: a driver may
write them at the end of the transaction, together. `-- sees: journal key=key` stands at a statement that looks at such
a table for rows with these values only: others may go on waiting. `-- alone: why` stands at what no other transaction
may be under way beside, of any server: a driver that runs several at once runs the verb again, alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from operator import itemgetter
from typing import Any, Final, NamedTuple

from perdure.store.records import expand_columns, row_reader, to_values

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_SHARED = re.compile(r"^-- text: (\w+)\n(.+?)\n(?=\n|\Z)", re.MULTILINE | re.DOTALL)
_INCLUDED = re.compile(r"\{= (\w+)\}")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_TEXT = re.compile(r"'[^']*'")
_WORD = re.compile(r"\w+")
_WRITES = re.compile(
    r"\b(INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|REPLACE\s+INTO)\b", re.IGNORECASE
)
_CHOICE = re.compile(r"\s?\{([^{}|]*)\}|\{([^{}|]*)\|([^{}|]*)\}")
_HOLDS = re.compile(r"-- holds: (\w+)=(\w+)")
_SEES = re.compile(r"-- sees: (\w+)((?: \w+=\w+)+)$")
_BULK = re.compile(r"-- bulk:([ \w]*)(?:; bytes([ \w]+))?$")
_NUMBERED = re.compile(r"\$(\d+)")
_MARK: Final = {"sqlite": "?", "postgres": "$"}


class Statement(NamedTuple):
    """One named query: its text with numbered parameters, and their names in order."""

    name: str
    sql: str
    parameters: tuple[str, ...]
    writes: bool
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """Puts named values into the order of the parameters."""
    returns: bool = True
    """Whether it answers with rows."""
    holds: tuple[str, int] | None = None
    """The kind of row that it touches, and which of its values names it."""
    effect: bool = False
    """Whether it changes anything when it answers with a row, or has no rows to answer with."""
    counted: bool = False
    """Whether an empty row for each that it changed is its answer (of many, the value that names what it holds)."""
    late: str | None = None
    """The table that it only adds rows to, which may be written later in the same transaction, with those of others."""
    alone: bool = False
    """Whether no other transaction may be under way, of any server."""
    waits: bool = True
    """Whether it waits for rows that somebody else has locked; otherwise it does without them."""
    looks_at: frozenset[str] = frozenset()
    """The words of its text: before it, what was put off for a table among them has to be written."""
    sees: tuple[str, Sequence[tuple[str, int]]] | None = None
    """The table of which it sees only some rows, and those: by column the place of its value."""
    routed: str | None = None
    """The text with one more value, which comes back as the first column of each row; None where that cannot be."""
    bulk: str | None = None
    """The text for many rows of values, one array for each parameter. Where the statement answers with rows, each has
    in front the place of its values, counted from 1. It changes no row twice, so no two of them may name the same."""
    readers: dict[type, Callable[[tuple[Any, ...]], Any]] | None = None
    """By class: the function that makes a record from a row. It is compiled at the first use."""

    def records(self, cls: type[Any], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
        assert self.readers is not None
        make = self.readers.get(cls)
        if make is None:
            make = self.readers[cls] = row_reader(cls, self.sql)
        return [make(row) for row in rows]

    def many(self, rows: Sequence[Any]) -> Sequence[tuple[Any, ...]]:
        """Put records, or dicts, into the order of the parameters. Tuples have it already."""
        if not rows or isinstance(rows[0], tuple):
            return rows
        return [self.values(row if isinstance(row, Mapping) else to_values(row)) for row in rows]


def spelled_out(text: str, source: str) -> str:
    """A file's text with what its queries share written where they name it; raises ValueError for a name that is not
    known, or stands twice."""
    found = [(match[1], match[2]) for match in _SHARED.finditer(text)]
    shared = dict(found)
    if len(shared) < len(found):
        raise ValueError(f"{source}: a text stands there, or in shared.sql, twice: {[name for name, _ in found]}.")

    def include(match: re.Match[str]) -> str:
        if match[1] not in shared:
            raise ValueError(f"{source}: there is no text {match[1]!r}.")
        return _INCLUDED.sub(include, shared[match[1]])

    return _INCLUDED.sub(include, _SHARED.sub("", text))


def parse(text: str, source: str, dialect: str = "sqlite") -> dict[str, Statement]:
    """The statements of one file; raises ValueError when one is ill-formed or lacks its header."""
    parts = _NAME.split(expand_columns(spelled_out(text, source), source))
    found: dict[str, Statement] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        comments = [line for line in body.splitlines() if line.startswith("--")]
        sql = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip().rstrip(";")
        sql = _said(sql, dialect)
        plain = _TEXT.sub("", sql)
        writes = bool(_WRITES.search(plain))
        if writes and not any(line.startswith(("-- holds:", "-- picks:")) for line in comments):
            raise ValueError(f"{source}: query {name!r} writes but does not say what it holds or picks.")
        if name in found:
            raise ValueError(f"{source}: query {name!r} stands there twice.")
        names: list[str] = []

        def number(match: re.Match[str], names: list[str] = names) -> str:
            if match[1] not in names:
                names.append(match[1])
            return f"{_MARK[dialect]}{names.index(match[1]) + 1}"

        text_of = _PARAMETER.sub(number, sql)
        held: tuple[str, int] | None = None
        for line in comments:
            if line.startswith("-- holds:"):
                match = _HOLDS.match(line)
                if match is None or match[2] not in names:
                    raise ValueError(f"{source}: query {name!r}: {line!r} names none of its values.")
                held = (match[1], names.index(match[2]))
        returns = not writes or " RETURNING " in re.sub(r"\s", " ", plain)
        found[name] = Statement(
            name,
            text_of,
            tuple(names),
            writes,
            _in_order(tuple(names)),
            returns,
            held,
            writes and "-- effect: none" not in comments,
            "-- answer: how many" in comments and not returns,
            _late(comments),
            any(line.startswith("-- alone:") for line in comments),
            "SKIP LOCKED" not in sql,
            frozenset(_WORD.findall(plain)),
            _sees(comments, names, f"{source}: query {name!r}"),
            _routed(text_of, len(names) + 1) if dialect == "postgres" and returns else None,
            _bulk(text_of, names, comments, f"{source}: query {name!r}") if dialect == "postgres" else None,
            {},
        )
    return found


def _late(comments: list[str]) -> str | None:
    return next((line.partition(": ")[2] for line in comments if line.startswith("-- late: ")), None)


def _sees(comments: list[str], names: list[str], where: str) -> tuple[str, Sequence[tuple[str, int]]] | None:
    header = next((line for line in comments if line.startswith("-- sees:")), None)
    if header is None:
        return None
    match = _SEES.match(header)
    pairs = [] if match is None else [pair.split("=") for pair in match[2].split()]
    if match is None or any(value not in names for _, value in pairs):
        raise ValueError(f"{where}: {header!r} names none of its values.")
    return match[1], [(column, names.index(value)) for column, value in pairs]


def _said(sql: str, dialect: str) -> str:
    """The text as one database hears it."""

    def choose(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[0].replace("{", "").replace("}", "") if dialect == "postgres" else ""
        return str(match[2] if dialect == "sqlite" else match[3])

    return _CHOICE.sub(choose, sql)


def _routed(sql: str, number: int) -> str | None:
    """The text that gives one more value back with each row, so that rows of many runs can be told apart."""
    if re.search(r"^UNION\b", sql, re.MULTILINE):
        return None
    column = f"CAST(${number} AS INTEGER) AS ord, "
    if re.match(r"SELECT\s", sql):
        return f"SELECT {column}{sql[7:]}"
    head, returning, rest = sql.rpartition("RETURNING ")
    return f"{head}{returning}{column}{rest}" if returning else None


def _bulk(sql: str, names: list[str], comments: list[str], where: str) -> str | None:
    """The same change for many rows of values: they come as arrays, and `unnest` makes rows of them."""
    header = next((line for line in comments if line.startswith("-- bulk:")), None)
    if header is None:
        return None
    match = _BULK.match(header)
    kinds = dict.fromkeys(names, "TEXT")
    if match is not None:
        kinds |= dict.fromkeys(match[1].split(), "BIGINT") | dict.fromkeys((match[2] or "").split(), "BYTEA")
    if match is None or len(kinds) > len(names):
        raise ValueError(f"{where}: {header!r} names none of its values.")
    arrays = ", ".join(f"${n}::{kinds[name]}[]" for n, name in enumerate(names, 1))
    places = ", ".join(f"p{n}" for n in range(1, len(names) + 1))
    many = f"unnest({arrays}) WITH ORDINALITY AS v ({places}, ord)"
    said = _NUMBERED.sub(r"v.p\1", sql)
    if insert := re.fullmatch(r"(INSERT INTO .+?)\sVALUES \((.+)\)", said, re.DOTALL):
        return f"{insert[1]} SELECT {insert[2]} FROM {many}"
    # The guards behind the row's own key stand in COALESCE so that no other index is thought to serve: on a table that
    # was almost empty when the plan was made, the one of held executions looks cheaper, and is not for long.
    update = re.fullmatch(
        r"(UPDATE .+)\sWHERE (project_id = v\.p\d+ AND id = v\.p\d+) AND (.+)\sRETURNING (.+)", said, re.DOTALL
    )
    if update is not None:
        changes, row, guards, columns = update.groups()
        return f"{changes} FROM {many} WHERE {row} AND COALESCE({guards}, FALSE) RETURNING v.ord, {columns}"
    raise ValueError(
        f"{where} is neither INSERT … VALUES nor UPDATE … WHERE (its key and guards): it has no bulk form."
    )


def _in_order(names: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def texts(name: str) -> list[tuple[str, str]]:
    """The files of `sql/` that are common, or a dialect's own, each with its text and what all of them share."""
    folder = files("perdure.store") / "sql"
    found = (
        [folder / f"{name}.sql"] if name != "common" else sorted((folder / name).iterdir(), key=lambda file: file.name)
    )
    shared = (folder / "common" / "shared.sql").read_text(encoding="utf-8")
    return [(file.name, f"{shared}\n{file.read_text(encoding='utf-8')}") for file in found if file.name != "shared.sql"]


@cache
def load(dialect: str) -> dict[str, Statement]:
    """All queries for one dialect: the common ones and its own. Refuses a name that stands twice."""
    found: dict[str, Statement] = {}
    for source, text in [*texts("common"), *texts(dialect)]:
        more = parse(text, source, dialect)
        twice = found.keys() & more.keys()
        if twice:
            raise ValueError(f"{source} defines queries that stand elsewhere too: {', '.join(sorted(twice))}.")
        found |= more
    return found
