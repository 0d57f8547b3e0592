"""Finds a program's server and key.

A running `perdure dev`, or application with `serve=`, leaves a note in its folder with the address and key, for
programs in or below the folder (`dev_note`).

`~/.config/perdure/credentials.toml` holds keys by server. A key serves for a named server, or for the server of this
folder:

    ["http://127.0.0.1:8080"]
    api_key = "sk_…"
    project_id = "…"
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from perdure.sdk.clients import dev_note
from perdure.wire.base.errors import BadRequest

DEFAULT_URL: Final = "http://127.0.0.1:8080"
URL_VARIABLE: Final = "PERDURE_URL"
KEY_VARIABLE: Final = "PERDURE_API_KEY"


class Access(NamedTuple):
    urls: tuple[str, ...]
    api_key: str | None
    guessed: bool = False
    """The caller named no server and the folder has none, so the address is `DEFAULT_URL`. Another project may run
    there, so the request carries no kept key."""


def find(
    url: str | Sequence[str] | None = None, api_key: str | None = None, *, environ: Mapping[str, str] | None = None
) -> Access:
    environ = os.environ if environ is None else environ
    given = url or environ.get(URL_VARIABLE)
    key = api_key or environ.get(KEY_VARIABLE)
    running = None if given and key else dev_note.find()
    guessed = not given and running is None
    given = given or (DEFAULT_URL if running is None else running.url)
    urls = tuple(
        part.strip().rstrip("/") for part in (given.split(",") if isinstance(given, str) else given) if part.strip()
    )
    if not urls:
        raise BadRequest(f"No server is named; give an address like {DEFAULT_URL}.")
    if not key and running is not None and running.url in urls:
        key = running.api_key
    if not key and not guessed:
        known = read()
        key = next((entry["api_key"] for one in urls if (entry := known.get(one)) and "api_key" in entry), None)
    return Access(urls, key or None, guessed)


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
    """Replaces the whole file, never readable by other users."""
    entries = read()
    entries[url.rstrip("/")] = {"api_key": api_key, "project_id": project_id}
    file = path()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = "# Written by `perdure dev`. API keys by server address; keep this file private.\n"
    for server, entry in sorted(entries.items()):
        text += f"\n[{json.dumps(server)}]\n"
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in sorted(entry.items()))
    dev_note.write_private(file, text)
