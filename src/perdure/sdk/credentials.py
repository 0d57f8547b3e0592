"""Finds a program's server and key.

While `perdure dev` runs, `.perdure/dev.json` in its folder has its address, for programs in or below it.

Keys are in `~/.config/perdure/credentials.toml`, by server:

    ["http://127.0.0.1:8080"]
    api_key = "sk_…"
    project_id = "…"
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from perdure.wire.errors import BadRequest

DEFAULT_URL: Final = "http://127.0.0.1:8080"
URL_VARIABLE: Final = "PERDURE_URL"
KEY_VARIABLE: Final = "PERDURE_API_KEY"
DEV_NOTE: Final = Path(".perdure") / "dev.json"


class Access(NamedTuple):
    urls: tuple[str, ...]
    api_key: str | None


def find(
    url: str | Sequence[str] | None = None, api_key: str | None = None, *, environ: Mapping[str, str] | None = None
) -> Access:
    environ = os.environ if environ is None else environ
    given = url or environ.get(URL_VARIABLE) or dev_server() or DEFAULT_URL
    urls = tuple(
        part.strip().rstrip("/") for part in (given.split(",") if isinstance(given, str) else given) if part.strip()
    )
    if not urls:
        raise BadRequest(f"No server is named; give an address like {DEFAULT_URL}.")
    key = api_key or environ.get(KEY_VARIABLE)
    if not key:
        known = read()
        key = next((entry["api_key"] for one in urls if (entry := known.get(one)) and "api_key" in entry), None)
    return Access(urls, key or None)


def dev_server() -> str | None:
    try:
        here = Path.cwd()
    except FileNotFoundError:  # the folder is gone
        return None
    found = (running_dev(folder / DEV_NOTE) for folder in (here, *here.parents))
    return next((url for url, _ in filter(None, found)), None)


def running_dev(note: Path) -> tuple[str, int] | None:
    """None if the process does not run."""
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        url, pid = str(said["url"]), int(said["pid"])
        if sys.platform != "win32":  # on Windows this would send it a Ctrl-C
            os.kill(pid, 0)
    except (OSError, ValueError, KeyError, TypeError):  # no note, or one of a killed process
        return None
    return url, pid


def path() -> Path:
    return Path.home() / ".config" / "perdure" / "credentials.toml"


def read() -> dict[str, dict[str, str]]:
    file = path()
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(
            f"The credentials in {str(file)!r} cannot be read: {error}. Repair or delete the file."
        ) from error
    return {
        url.rstrip("/"): {name: value for name, value in entry.items() if isinstance(value, str)}
        for url, entry in values.items()
        if isinstance(entry, dict)
    }


def write(url: str, *, api_key: str, project_id: str) -> None:
    """The file is replaced as a whole, never readable by other users."""
    entries = read()
    entries[url.rstrip("/")] = {"api_key": api_key, "project_id": project_id}
    file = path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".credentials-")  # 0600 from the start
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write("# Written by `perdure dev`. API keys by server address; keep this file private.\n")
            for server, entry in sorted(entries.items()):
                out.write(f"\n[{json.dumps(server)}]\n")
                out.writelines(f"{key} = {json.dumps(value)}\n" for key, value in sorted(entry.items()))
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
