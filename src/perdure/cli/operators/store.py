"""Commands for operators: backup, restore, doctor, erase."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from perdure.cli.base.commands import FAILED, Refused, add_commands
from perdure.cli.base.connect import with_client
from perdure.cli.base.options import DatabaseOption, JsonFlag, UrlOption
from perdure.cli.base.output import console, emit, print_result, say
from perdure.cli.base.server_or_file import existing_path, offline, place, store_address, store_path

if TYPE_CHECKING:
    from perdure.engine.engine import Engine

_SAME: Final = "The copy and the store are the same file."

ForceFlag = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Operate", backup, restore, doctor, erase)


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to put the copy.")],
    database: DatabaseOption = None,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a consistent copy of a store.

    The server may run.
    """
    import asyncio
    import shutil

    import apsw

    from perdure.store.drivers.disk import sync
    from perdure.store.drivers.file_lock import make_private
    from perdure.store.inspection import file_at, read_schema

    path = existing_path(database)
    if file.exists() and not force:
        raise Refused(f"{str(file)!r} is there already; name another file, or say --force.")
    if file.is_dir():
        raise Refused(f"{str(file)!r} is a folder; name a file in it.")
    _not_a_store_at_work(file, path)
    if not file.absolute().parent.is_dir():
        raise Refused(f"Folder {str(file.parent)!r} does not exist; make it first.")
    asyncio.run(read_schema(path))  # this release could not restore the copy of a store that it refuses
    partial = file.with_name(f".{file.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with file_at(path) as connection:
            try:
                make_private(partial)
                connection.execute("VACUUM INTO ?", (str(partial),))
            except (apsw.Error, OSError) as error:  # the store is damaged, or writing failed
                raise Refused(f"{path!r} cannot be copied to {str(file)!r}: {error}.") from None
        if file.exists():
            shutil.copymode(file, partial)
        sync(partial)
        os.replace(partial, file)
        sync(file.absolute().parent)
    finally:
        partial.unlink(missing_ok=True)
    size = file.stat().st_size
    print_result(as_json, {"file": str(file), "bytes": size}, f"Copied {path} to {file} ({size / 1e6:.1f} MB).")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A copy made by `perdure backup`.")],
    database: DatabaseOption = None,
    force: ForceFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Replace a stopped store by a copy.

    Workers register again.
    """
    import asyncio
    import shutil
    from uuid import uuid4

    from perdure.store.drivers.disk import sync
    from perdure.store.drivers.file_lock import make_private
    from perdure.store.drivers.sqlite import NotOurFile
    from perdure.store.open import open_store
    from perdure.store.verbs.base import access

    path = store_path(database)
    target = Path(os.path.realpath(path))  # links may lead to the file with the lock
    if not file.is_file():
        raise Refused(f"File {str(file)!r} does not exist.")
    if target.exists() and target.samefile(file):
        raise Refused(_SAME)
    if _log_of(file):
        raise Refused(
            f"{str(file)!r} is a store and not a copy: the changes in its log ({file.resolve().name}-wal) would "
            f"be lost. Make a copy with `perdure backup COPY --database {file}`, and restore that."
        )
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.restoring")

    async def prepare() -> None:
        try:
            store = await open_store(str(fresh))
        except NotOurFile as error:  # not a store, damaged, or of a newer release
            raise Refused(error.message.replace(repr(str(fresh)), repr(str(file)))) from None
        try:
            await store.write(access.new_epoch(epoch=str(uuid4())))
        finally:
            await store.close()

    with _nobody_else(target):
        if target.exists() and target.stat().st_size and not force:
            raise Refused(f"{path!r} holds a store; move it away first, or say --force to replace it.")
        _forget(fresh)  # a killed restore may have left a log, which SQLite would read into the copy
        try:
            make_private(fresh)
            shutil.copyfile(file, fresh)
            if target.exists():
                shutil.copymode(target, fresh)
            asyncio.run(prepare())
            sync(fresh)
            # Remove the old log first: SQLite must never read it with the new file.
            for ending in ("-wal", "-shm"):
                Path(f"{target}{ending}").unlink(missing_ok=True)
            os.replace(fresh, target)
            sync(target.absolute().parent)
        finally:
            _forget(fresh)
    text = f"Restored {path} from {file}. Workers register anew when the server runs."
    print_result(as_json, {"file": str(file), "store": path}, text)


def doctor(database: DatabaseOption = None, as_json: JsonFlag = False) -> None:
    """Check the invariants of a store.

    The server may run.
    """
    import asyncio

    from rich.text import Text

    from perdure.store.inspection import faults_in, read_schema
    from perdure.store.open import is_postgres

    address = store_address(database)
    if not is_postgres(address):
        existing_path(address)

    async def main() -> dict[str, list[str]]:
        _, pending = await read_schema(address)
        if pending:
            raise Refused(f"{place(address)} has an older schema; `perdure migrate` brings it up to date first.")
        return await faults_in(address)

    found = asyncio.run(main())
    if as_json:
        emit({"ok": not any(found.values()), "checks": found})
    else:
        out = console()
        for name, ids in found.items():
            out.print(Text("ok   " if not ids else "FAIL ", style="red" if ids else "green") + name.replace("_", " "))
            for id in ids:
                out.print(f"       {id}")
    if any(found.values()):
        raise typer.Exit(FAILED)


def erase(
    user: Annotated[str | None, typer.Option("--user", help="The user whose executions are deleted.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="The session whose executions are deleted.")] = None,
    database: DatabaseOption = None,
    url: UrlOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Delete the final executions of a user or session.

    Works on the server, or with --database in a stopped store.
    """
    from perdure.engine.base.service import Scope
    from perdure.wire.runs.executions import EraseExecutions

    if (user is None) == (session is None):
        raise Refused("Name either --user or --session.")
    if database is None:
        erased, still_open = with_client(url, lambda client: client.erase(user_id=user, session_id=session))
    else:

        async def work(engine: "Engine", project_id: str) -> tuple[int, int]:
            reply = await engine.serve(Scope(project_id), EraseExecutions(user, session))
            return reply.erased, reply.open

        erased, still_open = offline(database, work)
    if as_json:
        emit({"erased": erased, "open": still_open})
        return
    say(f"{erased} executions are deleted." if erased != 1 else "1 execution is deleted.")
    if still_open:
        say(f"{still_open} are still open: cancel them, then erase again.")


def _not_a_store_at_work(file: Path, store: str) -> None:
    """The server of an open store would continue with a deleted file."""
    if file.exists() and file.samefile(store):
        raise Refused(_SAME)
    if Path(f"{file}.lock").exists():
        with _nobody_else(file):
            pass
    if _log_of(file):
        raise Refused(f"{str(file)!r} is a store that has not been closed, with a log beside it; name another file.")


def _forget(store: Path) -> None:
    for ending in ("", "-wal", "-shm", ".lock"):
        Path(f"{store}{ending}").unlink(missing_ok=True)


def _log_of(file: Path) -> bool:
    log = Path(f"{os.path.realpath(file)}-wal")
    return log.exists() and log.stat().st_size > 0


@contextmanager
def _nobody_else(target: Path) -> Iterator[None]:
    from perdure.store.drivers.file_lock import FileLock

    lock = FileLock(str(target))
    try:
        yield
    finally:
        lock.release()
