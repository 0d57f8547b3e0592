"""Words of explanations: times, lists, and texts of users."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from perdure.wire.base.times import clamped

TEXT_MAX: Final = 200
"""Characters of a user's text in an explanation."""
NAMED_MAX: Final = 3
"""How many things a sentence names."""


def moment(at_us: int) -> str:
    """
    >>> moment(1_750_000_000_000_000)
    '2025-06-15 15:06:40 UTC'
    """
    return f"{datetime.fromtimestamp(clamped(at_us) // 1_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def listed(things: Sequence[str], last: str = " and ") -> str:
    """
    >>> [listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b", "c", "d", "e"])]
    ['a', 'a, b and c', 'a, b, c and 2 more']
    """
    if len(things) > NAMED_MAX:
        things = [*things[:NAMED_MAX], f"{len(things) - NAMED_MAX} more"]
    return last.join([", ".join(things[:-1]), things[-1]]) if len(things) > 1 else "".join(things)


COMPARED_CHARS_MAX: Final = 64
"""Two names of this length, made to be slow, take 0.3 ms to compare."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question to append to a message. Empty: no known name is near.

    >>> did_you_mean("ordr", ["order", "refund"]), did_you_mean("zebra", ["order", "refund"])
    (" Did you mean 'order'?", '')
    """
    if len(name) > COMPARED_CHARS_MAX:
        return ""
    return "".join(f" Did you mean {near!r}?" for near in difflib.get_close_matches(name, known, n=1))


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def quoted(text: str) -> str:
    return repr(cut(text))


def cut(text: str) -> str:
    """A single line of at most TEXT_MAX characters."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_MAX else line[: TEXT_MAX - 1] + "…"


def decoded_object(data: msgspec.Raw | bytes | None) -> dict[str, Any]:
    """The decoded object; other JSON gives an empty dict."""
    try:
        found = msgspec.json.decode(data or b"null")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def call_words(tool: str, arguments: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in arguments.items())
    return f"{tool}({given})"


def question_title(data: msgspec.Raw | bytes | None) -> str | None:
    """A question in words, if the data has words. The title of a call's approval has the call's arguments.

    >>> question_title(b'{"tool": "refund", "arguments": {"order": 7}, "_form": {"title": "Allow refund?"}}')
    'Allow refund(order=7)?'
    """
    shown = decoded_object(data)
    form, notify, tool, arguments = (shown.get(name) for name in ("_form", "_notify", "tool", "arguments"))
    found = [form.get("title") if isinstance(form, dict) else None, shown.get("question"), shown.get("title")]
    found += [notify.get("message") if isinstance(notify, dict) else None]
    title = next((text for text in found if isinstance(text, str) and text.strip()), None)
    if not isinstance(tool, str) or not isinstance(arguments, dict):
        return title
    call = call_words(tool, arguments)
    return f"Allow {call}?" if title == f"Allow {tool}?" else title or call


def plain(text: str) -> str:
    """Replace characters with control over a terminal, except line breaks and tabs.

    >>> plain("a\\x1b[2Jb\\n\\tc")
    'a�[2Jb\\n\\tc'
    """
    return "".join(one if one.isprintable() or one in "\n\t" else "�" for one in text)
