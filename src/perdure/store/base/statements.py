"""Loads the named SQL. A query is text in `sql/` under a line `-- name: …`.

Both databases run the text of `sql/common/`: `{a|b}` is `a` on SQLite and `b` on PostgreSQL, `{b}` is PostgreSQL only.
`{= …}` includes a part under `-- text: …` of the same file or `common/shared.sql`. A condition under `-- rule: NAME` in
`common/admission.sql` is the text `rule_NAME`. The text `admitted` joins all rules; `verdicts` has a column for each.

Header lines:

- `-- holds: table=value`: the row named by the arguments. A statement that writes needs this or `-- picks:`, because
  drivers run many verbs in one transaction. A read by which a verb decides declares its row, too.
- `-- shares: table=value`: like `holds`, but verbs sharing the row do not keep each other out.
- `-- picks: …`: a predicate chooses the rows.
- `-- effect: none`: the write only locks.
- `-- bulk: now_us seq; bytes value`: PostgreSQL gets a second text for many rows of values. The line names the values
  that are not texts.
- `-- answer: how many`: only the number of rows counts, because SQLite's RETURNING costs as much as the change. For
  many rows of values, the answer is the `holds` value of each changed row.
- `-- late: table`: only reads of this table need the rows, so a driver may write late rows together at the end.
- `-- sees: journal key=key`: the read sees only rows of a late table with these values.
- `-- alone: why`: no other transaction of any server may be open; a driver runs the verb again, alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from operator import itemgetter
from typing import Any, Final, NamedTuple

from perdure.store.base.records import Rows, expand_columns, rows_reader, rows_writer

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
_SHARED = re.compile(r"^-- text: (\w+)\n(.+?)\n(?=\n|\Z)", re.MULTILINE | re.DOTALL)
_RULE = re.compile(r"^-- rule: (\w+)$", re.MULTILINE)
_INCLUDED = re.compile(r"\{= (\w+)\}")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")
_TEXT = re.compile(r"'[^']*'")
_WORD = re.compile(r"\w+")
_WRITES = re.compile(
    r"\b(INSERT\s+(OR\s+\w+\s+)?INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|REPLACE\s+INTO)\b", re.IGNORECASE
)
_CHOICE = re.compile(r"\s?\{([^{}|]*)\}|\{([^{}|]*)\|([^{}|]*)\}")
_HOLDS = re.compile(r"-- (?:holds|shares): (\w+)=(\w+)")
_SEES = re.compile(r"-- sees: (\w+)((?: \w+=\w+)+)$")
_BULK = re.compile(r"-- bulk:([ \w]*)(?:; bytes([ \w]+))?$")
_NUMBERED = re.compile(r"\$(\d+)")
_SHARED_FILES: Final = ("shared", "admission")
_MARK: Final = {"sqlite": "?", "postgres": "$"}


class Statement(NamedTuple):
    name: str
    sql: str
    parameters: tuple[str, ...]
    writes: bool
    values: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    readers: dict[type, Callable[[Rows], list[Any]]]
    """Readers by class, compiled at the first use."""
    writers: dict[type, Callable[[Sequence[Any]], Rows]]
    returns: bool = True
    holds: tuple[str, int] | None = None
    """The kind of row, and the place of the value naming it."""
    shares: bool = False
    effect: bool = False
    """True if an answered row means a change, or if the statement cannot answer with rows."""
    counted: bool = False
    """The answer is an empty row per change."""
    late: str | None = None
    alone: bool = False
    waits: bool = True
    """False: the statement skips locked rows."""
    looks_at: frozenset[str] = frozenset()
    """The words of the text. Late rows of a table among the words must be written first."""
    sees: tuple[str, Sequence[tuple[str, int]]] | None = None
    """The late table, and by column the place of the selecting value."""
    routed: str | None = None
    """The text with another value, which comes back as the first column of each row; None if impossible."""
    bulk: str | None = None
    """The text for many rows of values, one array per parameter. Each result row begins with the place of its values,
    from 1. The values must not name a row twice."""

    def reader(self, cls: type[Any]) -> Callable[[Rows], list[Any]]:
        read = self.readers.get(cls)
        if read is None:
            read = self.readers[cls] = rows_reader(cls, self.sql)
        return read

    def many(self, rows: Sequence[Any]) -> Rows:
        """Tuples are in order already."""
        if not rows or isinstance(rows[0], tuple):
            return rows
        kind = type(rows[0])
        write = self.writers.get(kind)
        if write is None:
            if issubclass(kind, Mapping):
                return [self.values(row) for row in rows]
            write = self.writers[kind] = rows_writer(kind, self.parameters)
        return write(rows)


def spelled_out(text: str, source: str) -> str:
    found = [(match[1], match[2]) for match in _SHARED.finditer(text)]
    shared = dict(found)
    if len(shared) < len(found):
        raise ValueError(f"{source}: a text stands there, or in shared.sql, twice: {[name for name, _ in found]}.")
    for name, part in found:
        if "--" in part:  # it would hide the rest of the line that includes the text
            raise ValueError(f"{source}: text {name!r} has a comment; write it above the text, after an empty line.")

    def include(match: re.Match[str]) -> str:
        if match[1] not in shared:
            raise ValueError(f"{source}: it has no text {match[1]!r}.")
        return _INCLUDED.sub(include, shared[match[1]])

    return _INCLUDED.sub(include, _SHARED.sub("", text))


def parse(text: str, source: str, dialect: str = "sqlite") -> dict[str, Statement]:
    """Raises ValueError for an ill-formed statement or a missing header."""
    parts = _NAME.split(expand_columns(spelled_out(text, source), source))
    found: dict[str, Statement] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        comments = [line for line in body.splitlines() if line.startswith("--")]
        sql = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip().rstrip(";")
        sql = _in_dialect(sql, dialect)
        plain = _TEXT.sub("", sql)
        writes = bool(_WRITES.search(plain))
        if writes and not any(line.startswith(("-- holds:", "-- shares:", "-- picks:")) for line in comments):
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
            if line.startswith(("-- holds:", "-- shares:")):
                match = _HOLDS.match(line)
                if match is None or match[2] not in names:
                    raise ValueError(f"{source}: query {name!r}: {line!r} names none of its values.")
                held = (match[1], names.index(match[2]))
        returns = not writes or " RETURNING " in re.sub(r"\s", " ", plain)
        found[name] = Statement(
            name=name,
            sql=text_of,
            parameters=tuple(names),
            writes=writes,
            values=_in_order(tuple(names)),
            readers={},
            writers={},
            returns=returns,
            holds=held,
            shares=any(line.startswith("-- shares:") for line in comments),
            effect=writes and "-- effect: none" not in comments,
            counted="-- answer: how many" in comments and not returns,
            late=_late(comments),
            alone=any(line.startswith("-- alone:") for line in comments),
            waits="SKIP LOCKED" not in sql,
            looks_at=frozenset(_WORD.findall(plain)),
            sees=_sees(comments, names, f"{source}: query {name!r}"),
            routed=_routed(text_of, len(names) + 1) if dialect == "postgres" and returns else None,
            bulk=_bulk(text_of, names, comments, f"{source}: query {name!r}") if dialect == "postgres" else None,
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


def _in_dialect(sql: str, dialect: str) -> str:
    def choose(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[0].replace("{", "").replace("}", "") if dialect == "postgres" else ""
        return str(match[2] if dialect == "sqlite" else match[3])

    return _CHOICE.sub(choose, sql)


def _routed(sql: str, number: int) -> str | None:
    """Return another value with each row, to tell the rows of many runs apart."""
    if re.search(r"^UNION\b", sql, re.MULTILINE):
        return None
    column = f"CAST(${number} AS INTEGER) AS ord, "
    if re.match(r"SELECT\s", sql):
        return f"SELECT {column}{sql[7:]}"
    head, returning, rest = sql.rpartition("RETURNING ")
    return f"{head}{returning}{column}{rest}" if returning else None


def _bulk(sql: str, names: list[str], comments: list[str], where: str) -> str | None:
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
    if insert := re.fullmatch(r"(INSERT INTO .+?)\sVALUES \((.+)\)(\sON CONFLICT .+)?", said, re.DOTALL):
        return f"{insert[1]} SELECT {insert[2]} FROM {many}{insert[3] or ''}"
    # COALESCE keeps PostgreSQL on the row's key. A plan for an almost empty table would prefer the index of held
    # executions, which soon is slower.
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
    """Each file's name and text, with the shared parts in front."""
    folder = files("perdure.store") / "sql"
    found = (
        [folder / f"{name}.sql"] if name != "common" else sorted((folder / name).iterdir(), key=lambda file: file.name)
    )
    shared, rules = ((folder / "common" / f"{one}.sql").read_text(encoding="utf-8") for one in _SHARED_FILES)
    shared += "\n" + with_rules(rules)
    return [
        (file.name, f"{shared}\n{file.read_text(encoding='utf-8')}")
        for file in found
        if file.name.removesuffix(".sql") not in _SHARED_FILES
    ]


def with_rules(text: str) -> str:
    """Turn the rules of a text into shared texts."""
    names = _RULE.findall(text)
    together = {
        "admitted": "\n  AND ".join(f"({{= rule_{name}}})" for name in names),
        "verdicts": ",\n  ".join(f"CASE WHEN {{= rule_{name}}} THEN 1 ELSE 0 END AS {name}" for name in names),
    }
    alone = text.replace("-- rule: ", "-- text: rule_")
    return "\n".join([alone, *(f"-- text: {name}\n{rules}\n" for name, rules in together.items())])


@cache
def load(dialect: str) -> dict[str, Statement]:
    found: dict[str, Statement] = {}
    for source, text in [*texts("common"), *texts(dialect)]:
        more = parse(text, source, dialect)
        twice = found.keys() & more.keys()
        if twice:
            raise ValueError(f"{source} defines queries that stand elsewhere too: {', '.join(sorted(twice))}.")
        found |= more
    return found
