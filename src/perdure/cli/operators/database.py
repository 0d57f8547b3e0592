"""Commands for the whole database."""

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perdure.cli.base.commands import Refused, add_commands, add_group
from perdure.cli.base.options import DatabaseOption, JsonFlag
from perdure.cli.base.output import emit, print_result, print_table, say
from perdure.cli.base.server_or_file import place, store_address, store_path

if TYPE_CHECKING:
    from perdure.store.base.interface import Rows

NEWER: Final = "newer than this release, which can work with it"
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Operate", migrate)
    add_group(app, "Operate", "db", "Inspect the database.", size)
    add_group(app, "Operate", "store", "Move a store to another database.", copy)


def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be done.")] = False,
    database: DatabaseOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Bring a database's schema up to date.

    `perdure serve` does the same at its start.
    """
    import asyncio

    from perdure.store.drivers.migrate import migrations
    from perdure.store.inspection import read_schema
    from perdure.store.open import open_store

    where = store_address(database)

    async def main() -> None:
        before, pending = await read_schema(where)
        if pending and not dry_run:
            await (await open_store(where)).close()
        now = pending[-1].number if pending and not dry_run else before.number
        names = [f"{one.number:04}_{one.name}" for one in pending]
        if as_json:
            compatible = all(one.compatible for one in pending)
            emit({"schema": now, "dry_run": dry_run, "migrations": names, "compatible": compatible})
            return
        if not names:
            newer = now > migrations("sqlite")[-1].number
            say(f"{place(where)} has schema {now}, {NEWER if newer else 'the newest that this release knows'}.")
        elif dry_run:
            say(f"{place(where)} has schema {now}; to do:")
        for name, one in zip(names, pending, strict=True):
            # Without a schema, no server uses the database.
            say(f"  {name}{'' if one.compatible or not before.number else ' (stop all servers first)'}")
        if names and not dry_run:
            say(f"{place(where)} has schema {now} now.")

    asyncio.run(main())


def size(database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """Show what uses the space, by workflow and table.

    Servers may run. The command reads the whole database once.
    """
    found = _sizes(store_address(database))
    ((total, free),) = found["size_all"]
    workflows = _by_workflow(found)
    tables = sorted(found["size_tables"], key=lambda row: -row[1])
    if as_json:
        emit(
            {
                "bytes": total,
                "free_bytes": free,
                "workflows": workflows,
                "tables": [{"name": name, "bytes": all_, "index_bytes": indexes} for name, all_, indexes in tables],
            }
        )
        return
    several = len({one["project_id"] for one in workflows}) > 1
    numbers = ("EXECUTIONS", "OPEN", "INPUTS, RESULTS", "JOURNAL", "LOGS", "STREAMS", "VALUES")
    rows = [
        (
            one["workflow_id"],
            *([one["project_id"]] if several else []),
            f"{one['executions']:,}",
            f"{one['open']:,}",
            *(_bytes(one[name]) for name in ("value_bytes", "journal_bytes", "log_bytes", "stream_bytes", "bytes")),
        )
        for one in workflows
    ]
    print_table(("WORKFLOW", *(["PROJECT"] if several else []), *numbers), rows, right=numbers)
    say()
    columns = ("TABLE", "WITH INDEXES", "INDEXES")
    print_table(columns, [(name, _bytes(all_), _bytes(own)) for name, all_, own in tables], right=columns[1:])
    say()
    say(f"{_bytes(total)} in all{'' if free is None else f', {_bytes(free)} of it free'}.")


def _sizes(address: str) -> "dict[str, Rows]":
    import asyncio

    from perdure.store.inspection import read_schema, sizes_of

    async def main() -> "dict[str, Rows]":
        schema, pending = await read_schema(address)
        if pending:
            raise Refused(f"{place(address)} has schema {schema.number}; `perdure migrate` brings it up to date first.")
        return await sizes_of(address)

    return asyncio.run(main())


def _by_workflow(found: "dict[str, Rows]") -> list[dict[str, Any]]:
    journal, logs, streams = (
        defaultdict(int, {(project, name): bytes_ for project, name, _, bytes_ in found[size]})
        for size in ("size_journal", "size_logs", "size_streams")
    )
    workflows = [
        {
            "project_id": project,
            "workflow_id": name,
            "executions": executions,
            "open": open_,
            "value_bytes": values,
            "journal_bytes": journal[project, name],
            "log_bytes": logs[project, name],
            "stream_bytes": streams[project, name],
            "bytes": values + journal[project, name] + logs[project, name] + streams[project, name],
        }
        for project, name, executions, open_, values in found["size_executions"]
    ]
    return sorted(workflows, key=lambda one: (-one["bytes"], one["workflow_id"]))


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The stopped store: a path, or sqlite:PATH.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="An empty database: postgresql://…")],
    as_json: JsonFlag = False,
) -> None:
    """Copy a stopped installation from SQLite to PostgreSQL.

    Counts and hashes of all rows verify the copy.
    """
    import asyncio
    import os

    from perdure.engine.base.clock import SystemClock
    from perdure.store.open import is_postgres, no_driver

    if is_postgres(source) or not is_postgres(target):
        raise Refused("A store is moved from SQLite (a path, or sqlite:PATH) to PostgreSQL (postgresql://…).")
    path = store_path(source)
    if not os.path.exists(path):
        raise Refused(f"The store {path!r} does not exist.")
    try:
        from perdure.store.copying import copy_store
    except ImportError as error:
        raise no_driver(error) from error

    def tell(table: str, rows: int) -> None:
        if not as_json:
            say(f"{table:<21} {rows:>12,} rows, the same in both")

    found = asyncio.run(copy_store(path, target, now_us=SystemClock().now_us(), tell=tell))
    print_result(
        as_json,
        {"source": path, "tables": {name: {"rows": one.rows, "hash": one.hash} for name, one in found.items()}},
        f"{path} is in {place(target)}. Start the servers on it; the file stays as it is, do not serve it again.",
    )


def _bytes(number: int) -> str:
    """
    >>> [_bytes(number) for number in (0, 999, 1_500, 2_345_678, 12_000_000_000)]
    ['0 B', '999 B', '1.5 kB', '2.3 MB', '12.0 GB']
    """
    value, unit = float(number), 0
    while value >= 1_000 and unit < len(_UNITS) - 1:
        value, unit = value / 1_000, unit + 1
    return f"{number} B" if not unit else f"{value:.1f} {_UNITS[unit]}"
