"""Writes tables of docs/ from the declarations of commands and operations: `make tables`.

- docs/commands.md: every command with its options
- docs/http-api.md: a row for each route that no row names yet, with the first paragraph of its documentation
- docs/http-api.md: the POSTs without an Idempotency-Key, with the effect of a repeat
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer

from perdure.cli.main import app
from perdure.server.app import all_routes
from perdure.server.http.routing import Route
from perdure.wire.base.access import Role

DOCS: Final = Path(__file__).resolve().parent.parent / "docs"
EVERYWHERE: Final = {"--help", "--json", "--url", "--database", "--limit"}
"""Options that docs/commands.md explains once."""
FILTERS: Final = (
    "`--status` `--phase` `--workflow` `--key` `--key-part` `--tag` `--field` `--error` `--retried` `--queue` "
    "`--session` `--user` `--parent` `--root` `--batch` `--deployment` `--since` `--before`"
)
JOB: Final = "`--note` `--dry-run` `--yes` `--detach`"
"""Those of `perdure ls` and `perdure bulk`, and of bulk jobs, which docs/commands.md lists once."""


def commands(panel: str) -> Iterator[str]:
    """The row of each command below a heading of `perdure --help`: its arguments, its effect and its options."""
    root: Any = typer.main.get_command(app)
    for name, one in root.commands.items():
        if one.rich_help_panel == panel and not one.hidden:
            yield from _rows(one, f"perdure {name}")


def _rows(one: Any, path: str) -> Iterator[str]:
    if hasattr(one, "commands"):
        for name, inner in one.commands.items():
            if not inner.hidden:
                yield from _rows(inner, f"{path} {name}")
        return
    shown = [param for param in one.params if not getattr(param, "hidden", False)]
    usage = " ".join([path, *(param.metavar for param in shown if param.param_type_name == "argument")])
    options = [param.opts[0] for param in shown if param.param_type_name == "option"]
    listed = " ".join(f"`{option}`" for option in options if option not in EVERYWHERE)
    listed = listed.replace(FILTERS, "*filters*").replace(JOB, "*job*")
    yield _row(f"`{usage}`", " ".join(one.help.partition("\n\n")[0].split()), listed)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def with_commands(page: str) -> str:
    """The page with the rows of each heading's table written anew."""
    for panel in re.findall(r"^## (.+)$", page, re.MULTILINE):
        if rows := list(commands(panel)):
            page = _with_rows(page, panel, rows)
    return page


def _with_rows(page: str, heading: str, rows: list[str]) -> str:
    """Replace the rows of the first table below the heading."""
    table = re.compile(rf"(^## {re.escape(heading)}\n(?:(?!\|---|## ).*\n)*\|[-|]+\|\n)(?:\|.*\n)*", re.MULTILINE)
    found = table.search(page)
    assert found is not None, f"a table below {heading!r}"
    return page[: found.end(1)] + "\n".join(rows) + "\n" + page[found.end() :]


def with_routes(page: str, *others: str) -> str:
    """The page with a row for each route that neither a table of it nor of the other pages names. It follows the last
    row of its noun."""
    named = set().union(*map(paths_in, (page, *others)))
    routes = [route for route in all_routes() if route.path.startswith(("/api/", "/v1/"))]
    lines = page.splitlines()
    for route in routes:
        if plain(route.path) in named:
            continue
        noun = {plain(one.path) for one in routes if one.tag == route.tag}
        last = max((n for n, line in enumerate(lines) if noun & paths_in(line)), default=None)
        assert last is not None, f"a row of the noun {route.tag!r}: write its first one by hand"
        role = " (`admin`)" if route.role is Role.ADMIN else ""
        effect = " ".join(route.doc.partition("\n\n")[0].split()).removesuffix(".")
        lines.insert(last + 1, _row(f"{route.method} {route.path}", effect + role))
    return "\n".join(lines) + "\n"


def paths_in(page: str) -> set[str]:
    """The paths in the first cells of the tables of routes."""
    cells = re.findall(r"^\| ((?:GET|POST|PUT|PATCH|DELETE) [^|]*)", page, re.MULTILINE)
    return {plain(path) for cell in cells for path in re.findall(r"/[^ ?]*", cell)}


def plain(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)


FAMILIES: Final = ("/worker/v1/", "/internal/executions/")
"""One path stands for all that begin so."""


def with_repeats(page: str) -> str:
    """The page with the table of POSTs that take no Idempotency-Key, by the effect of a repeat."""
    effects: dict[str, list[str]] = {}
    for route in all_routes():
        if route.method == "POST" and not route.idempotent:
            family = next((one for one in FAMILIES if route.path.startswith(one)), None)
            shown = effects.setdefault(_effect(route), [])
            path = route.path if family is None else f"{family}…"
            if path not in shown:
                shown.append(path)
    rows = [_row(" · ".join(paths), effect) for effect, paths in effects.items()]
    return _with_rows(page, "Idempotency-Key", rows)


def _effect(route: Route) -> str:
    assert route.repeated is not None, f"{route.name}: is not idempotent; name the effect of a repeat in `repeated`"
    return route.repeated


def pages() -> dict[Path, str]:
    """The text of each page, as the declarations have it."""
    commands, http, accounts = (DOCS / f"{name}.md" for name in ("commands", "http-api", "accounts"))
    routes = with_routes(http.read_text(encoding="utf-8"), accounts.read_text(encoding="utf-8"))
    return {
        commands: with_commands(commands.read_text(encoding="utf-8")),
        http: with_repeats(routes),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8", newline="\n")
