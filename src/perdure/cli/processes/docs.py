"""The documentation at the command line, and the skill for coding agents."""

from pathlib import Path
from typing import Annotated, Final

import typer

from perdure.cli.base.commands import add_commands, add_group
from perdure.cli.base.options import JsonFlag
from perdure.cli.base.output import emit, print_result, print_table, say

SHOWN: Final = 5
SKILLS: Final = Path(".agents/skills")


def add_to(app: typer.Typer) -> None:
    add_commands(app, "Start", docs)
    add_group(app, "Start", "skill", "The skill that teaches coding agents to use Perdure.", install)


def docs(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[WORDS]", help="The name of a page, or words to search for.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the pages of the documentation, show one, or search them."""
    from perdure.mcp import docs as library
    from perdure.wire.base.errors import NotFound

    if not words:
        listed = [(one.name, one.title) for one in library.pages().values()]
        if as_json:
            for name, title in listed:
                emit({"page": name, "title": title})
        else:
            print_table(("PAGE", "TITLE"), listed, whole=("PAGE",))
        return
    if len(words) == 1:
        try:
            page = library.page(words[0])
        except NotFound:
            pass
        else:
            print_result(as_json, {"page": page.name, "title": page.title, "text": page.text}, page.text)
            return
    found = library.search(" ".join(words), SHOWN)
    if as_json:
        for one in found:
            emit(one._asdict())
    elif found:
        say("\n\n".join(f"[{one.page}] {one.heading}\n\n{one.text}" for one in found))
    else:
        say(f"No page has these words. The pages are: {', '.join(library.pages())}.")


def install(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The folder of skills.")] = SKILLS,
    as_json: JsonFlag = False,
) -> None:
    """Write FOLDER/perdure/SKILL.md for coding agents."""
    from perdure.mcp.docs import skill

    file = folder / "perdure" / "SKILL.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(skill(), encoding="utf-8")
    print_result(as_json, {"file": str(file)}, f"Wrote {file}")
