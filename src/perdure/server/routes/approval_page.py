"""The page for answering a suspended step's question.

Nothing becomes markup or a link. Invisible characters and changes of the writing direction are spelled out, for an
input field below the field.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from perdure.store.verbs.people.accounts import StoredInvitation
from perdure.wire.agents.answer_forms import APPROVED, JSON_ANSWER, TEXT_CHARACTERS_MAX, Field, Form, question_form
from perdure.wire.agents.approvals import AnswerChannel, Question, QuestionState

SHOWN_MAX: Final = 200_000
LINE_MAX: Final = 300
NAMED_MAX: Final = 10
"""Kinds of invisible characters, below a field."""
_CUT: Final = "<span class='cut'>"
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
"""Printable characters without a glyph: fillers, and selectors not needed by emoji."""
_BREAKS: Final = {ord("\n"): None, ord("\t"): None}

STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; --line: #8886; --soft: #8882; --bad: #b00020; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a9a; } }
body { max-width: 44rem; margin: 2rem auto; padding: 0 1rem 4rem; }
h1 { font-size: 1.4rem; margin: 0 0 0.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
p { margin: 0.5rem 0; overflow-wrap: anywhere; white-space: pre-wrap; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: 0.25rem 1rem; margin: 0.5rem 0; }
dt { opacity: 0.75; overflow-wrap: anywhere; max-width: 14rem; }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
pre { margin: 0.5rem 0; padding: 0.75rem; background: var(--soft); border-radius: 0.4rem; max-height: 24rem;
  overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; font: 0.875rem/1.45 ui-monospace, monospace; }
.facts { font-size: 0.875rem; border-top: 1px solid var(--line); margin-top: 2rem; padding-top: 0.75rem; }
.field { margin: 1.25rem 0; }
label, legend { font-weight: 600; overflow-wrap: anywhere; }
fieldset { border: 0; margin: 0; padding: 0; }
fieldset label { font-weight: 400; display: block; padding: 0.25rem 0; }
.needed { font-weight: 400; opacity: 0.75; }
.hint { font-size: 0.875rem; opacity: 0.8; margin: 0.1rem 0 0.3rem; }
.error { color: var(--bad); font-weight: 600; margin: 0.2rem 0; }
.summary { border: 2px solid var(--bad); border-radius: 0.4rem; padding: 0.5rem 1rem; margin: 1rem 0; }
.summary a { color: var(--bad); }
input[type=text], input[type=date], input[type=password], input[type=email], select, textarea {
  font: inherit; width: 100%; box-sizing: border-box; padding: 0.5rem; border: 1px solid var(--line);
  border-radius: 0.4rem; background: Field; color: FieldText; }
textarea { min-height: 7rem; }
[aria-invalid=true] { border-color: var(--bad) !important; border-width: 2px !important; }
button { font: inherit; font-weight: 600; padding: 0.6rem 1.4rem; border-radius: 0.4rem; border: 1px solid var(--line);
  margin: 0 0.75rem 0.5rem 0; cursor: pointer; background: var(--soft); color: inherit; }
button.yes { background: #14703c; border-color: #14703c; color: #fff; }
button.no { background: #a3182c; border-color: #a3182c; color: #fff; }
button.send { background: #1f5fbf; border-color: #1f5fbf; color: #fff; }
:focus-visible { outline: 3px solid #4c8dff; outline-offset: 2px; }
.odd { background: #fc06; border-radius: 0.2rem; padding: 0 0.15rem; font: 0.8em ui-monospace, monospace; }
.cut { font-weight: 700; color: var(--bad); }
.warning { border: 2px solid #b8860b; border-radius: 0.4rem; padding: 0.5rem 1rem; margin: 0.5rem 0; }
.said { border: 1px solid var(--line); border-radius: 0.4rem; padding: 0.75rem 1rem; margin: 1rem 0; }
"""


def question_page(
    question: Question,
    *,
    answering_as: str,
    signed_in: bool = False,
    sent: Mapping[str, list[str]] | None = None,
    errors: Mapping[str, str] | None = None,
) -> str:
    """`sent` is the input and `errors` the faults after a mistake."""
    form = question_form(question)
    errors = errors or {}
    title = form.title or question.step_key
    heading = "<h1>An answer is wanted</h1>"
    if form.title:
        heading = f"<h1 dir='auto'>{shown(form.title, LINE_MAX)}</h1>"
    asked = f"{heading}{_what(form)}"
    body = [
        asked,
        _early(question),
        _form(question, form, answering_as, sent, errors=errors, asked=asked),
        _facts(question, form),
    ]
    if signed_in:
        body.append("<form method='post' action='/sign-out'><button type='submit'>Sign out</button></form>")
    said = "Error: " if errors else ""
    return _page(f"{said}{title}", "".join(body))


def closed_page(question: Question, *, mine: str | None = None) -> str:
    form = question_form(question)
    said = question.approval
    if said is not None:
        you = " (you)" if mine == said.answered_by else ""
        how = {
            AnswerChannel.API: "through the API",
            AnswerChannel.PAGE: "on this page",
            AnswerChannel.LINK: "with a signed link",
        }[said.how]
        what = (
            "<h1>This has been answered</h1><div class='said' role='status'>"
            f"<p><strong>{_verdict(bytes(said.data))}</strong></p>"
            f"<dl><dt>By</dt><dd><bdi>{shown(said.answered_by, LINE_MAX)}</bdi>{you}, {how}</dd>"
            f"<dt>At</dt><dd>{_time(said.answered_at_us)}</dd></dl></div>"
            f"<h2>The answer</h2>{_json(json.loads(bytes(said.data)))}"
        )
    elif question.state is QuestionState.ANSWERED:
        what = "<h1>This has been answered</h1><p>It was answered by another program; who that was is not known.</p>"
    elif question.state is QuestionState.EXPIRED:
        until = f" on {_time(question.expires_at_us)}" if question.expires_at_us is not None else ""
        what = (
            f"<h1>The time to answer is over</h1><p>The question expired{until}; the workflow went on without it.</p>"
        )
    else:
        what = "<h1>The workflow waits no more</h1><p>The workflow went on, or has ended.</p>"
    title = f"<p dir='auto'><strong>{shown(form.title, LINE_MAX)}</strong></p>" if form.title else ""
    asked = f"<h2>What was asked</h2>{title}{_what(form)}"
    return _page("Answered" if said else "Closed", what + asked + _facts(question, form))


def message_page(title: str, text: str) -> str:
    return _page(title, f"<h1>{shown(title, LINE_MAX)}</h1><p>{shown(text, LINE_MAX * 4)}</p>")


def sign_in_page(next_path: str, *, error: str | None = None, with_key: bool = False) -> str:
    """`with_key`: the error is about the key, not the password."""
    here = escape(next_path, quote=True)
    hidden = f"<input type='hidden' name='next' value='{here}'>"
    mistakes = {"key" if with_key else "email": error} if error else {}
    return _page(
        "Error: sign in" if error else "Sign in",
        "<h1>Sign in to answer</h1><p>This page is for people of the project.</p>"
        f"<form method='post' action='/sign-in'>{hidden}"
        f"{_sign_in_field('email', 'E-mail', 'email', 'username', mistakes)}"
        f"{_sign_in_field('password', 'Password', 'password', 'current-password', mistakes)}"
        "<button class='send' type='submit'>Sign in</button></form>"
        f"<h2>Or with an API key that may write</h2><form method='post' action='/sign-in'>{hidden}"
        f"{_sign_in_field('key', 'API key', 'password', 'off', mistakes)}"
        "<button class='send' type='submit'>Sign in with the key</button></form>",
    )


def join_page(invited: StoredInvitation, token: str, *, signed_in: str | None, error: str | None = None) -> str:
    project = f"<bdi>{shown(invited.project, LINE_MAX)}</bdi>"
    form = "<form method='post' action='/join'><input type='hidden' name='invitation' "
    form += f"value='{escape(token, quote=True)}'>"
    mine = ""
    if signed_in is not None:
        mine = (
            f"{form}<p>You are signed in as <bdi>{shown(signed_in, LINE_MAX)}</bdi>.</p>"
            "<button class='yes' name='do' value='join'>Join with this account</button></form><h2>Or with another</h2>"
        )
    mistakes = {"email": error} if error else {}
    return _page(
        "Error: join a project" if error else "Join a project",
        f"<h1>Join {project}</h1><p>You are invited as <bdi>{shown(invited.email, LINE_MAX)}</bdi>, with the role "
        f"{invited.role.value}.</p>{mine}{form}"
        f"{_sign_in_field('email', 'E-mail', 'email', 'username', mistakes, value=invited.email)}"
        f"{_sign_in_field('password', 'Password; choose one if you are new here', 'password', 'current-password', {})}"
        "<button class='send' name='do' value='new'>Create an account and join</button>"
        "<button name='do' value='known'>Sign in and join</button></form>",
    )


def _sign_in_field(name: str, label: str, kind: str, fill: str, mistakes: Mapping[str, str], value: str = "") -> str:
    error = mistakes.get(name)
    told = "" if error is None else f"<p class='error' id='{name}-error' role='alert'>{shown(error, LINE_MAX)}</p>"
    return (
        f"<div class='field'><label for='{name}'>{label}</label>{told}<input id='{name}' name='{name}' type='{kind}' "
        f"value='{escape(value, quote=True)}' autocomplete='{fill}' "
        f"required{_described(name, hint=False, error=error)}></div>"
    )


def _page(title: str, body: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{_plain(title)}</title><link rel='stylesheet' href='/assets/approve.css'></head>"
        f"<body><main>{body}</main></body></html>"
    )


def _what(form: Form) -> str:
    parts: list[str] = []
    if form.description:
        parts.append(f"<p dir='auto'>{shown(form.description, SHOWN_MAX)}</p>")
    if form.tool:
        parts.append(f"<p>Tool: <bdi><strong>{shown(form.tool, LINE_MAX)}</strong></bdi></p>")
    if form.context is not None:
        parts.append(f"<h2>Context</h2>{_json(form.context)}")
    if form.data is not None:
        parts.append(f"<h2>Data</h2>{_json(form.data)}")
    return "".join(parts)


def _form(
    question: Question,
    form: Form,
    answering_as: str,
    sent: Mapping[str, list[str]] | None,
    errors: Mapping[str, str],
    asked: str,
) -> str:
    fields: list[str] = []
    names: dict[str, str] = {}
    if form.fields is None:
        names[JSON_ANSWER] = "Your answer"
        fields.append(_json_field(sent, errors))
    for n, field in enumerate(form.fields or ()):
        if form.decides and field.key == APPROVED:
            continue
        name = f"f{n}"
        names[name] = field.label
        fields.append(_field(name, field, None if sent is None else sent.get(name, []), errors.get(name)))
    buttons = "<button class='send' type='submit'>Send the answer</button>"
    if form.decides:
        n = [field.key for field in form.fields or ()].index(APPROVED)
        names[f"f{n}"] = "Approve or reject"
        buttons = (
            f"<button class='yes' type='submit' name='f{n}' value='true'>Approve</button>"
            f"<button class='no' type='submit' name='f{n}' value='false'>Reject</button>"
        )
    decision = f" id='f{n}' tabindex='-1'" if form.decides else ""
    return (
        f"{_summary(errors, names)}<form method='post' accept-charset='utf-8' novalidate>"
        f"<input type='hidden' name='question' value='{escape(question.id, quote=True)}'>{''.join(fields)}"
        f"{_unfinished(question, asked)}"
        f"<p class='hint'>You answer as <bdi>{shown(answering_as, LINE_MAX)}</bdi>. The first answer stands.</p>"
        f"<div{decision}>{buttons}</div></form>"
    )


def _early(question: Question) -> str:
    early = question.early
    if early is None:
        return ""
    return (
        f"<p class='warning'><bdi>{shown(early.answered_by, LINE_MAX)}</bdi> answered on "
        f"{_time(early.answered_at_us)}, before this was asked. That answer does not count.</p>"
    )


def _unfinished(question: Question, asked: str) -> str:
    if _CUT not in asked:
        return ""
    path = f"/api/v1/approvals/{question.execution_id}/{question.step_key}"
    return (
        "<p class='warning' role='note'>This page does not show all that is asked. Read the rest before you answer: "
        f"<code>GET {shown(path, LINE_MAX * 4)}</code> has it whole.</p>"
    )


def _summary(errors: Mapping[str, str], names: Mapping[str, str]) -> str:
    if not errors:
        return ""
    items = "".join(
        f"<li><a href='#{name}'><bdi>{shown(names.get(name, name), LINE_MAX)}</bdi></a>: {shown(text, LINE_MAX)}</li>"
        for name, text in errors.items()
    )
    return f"<div class='summary' role='alert' tabindex='-1'><h2>Nothing was sent yet</h2><ul>{items}</ul></div>"


def _json_field(sent: Mapping[str, list[str]] | None, errors: Mapping[str, str]) -> str:
    text = "" if sent is None else sent.get(JSON_ANSWER, [""])[0]
    error = errors.get(JSON_ANSWER)
    return (
        f"<div class='field'><label for='{JSON_ANSWER}'>Your answer, as JSON</label>"
        f"<p class='hint' id='{JSON_ANSWER}-hint'>What the workflow expects, such as <code>true</code>, "
        "<code>&quot;a text&quot;</code> or <code>{&quot;approved&quot;: true}</code>.</p>"
        f"{_error(JSON_ANSWER, error)}<textarea id='{JSON_ANSWER}' name='{JSON_ANSWER}' spellcheck='false' required"
        f"{_described(JSON_ANSWER, hint=True, error=error, spelled=bool(_unseen(text)))}>\n{escape(text)}</textarea>"
        f"{_spelled(JSON_ANSWER, text)}</div>"
    )


def _field(name: str, field: Field, sent: list[str] | None, error: str | None) -> str:
    needed = "" if field.required else " <span class='needed'>(optional)</span>"
    label = f"<bdi>{shown(field.label, LINE_MAX)}</bdi>{needed}"
    hint = f"<p class='hint' id='{name}-hint' dir='auto'>{shown(field.description, LINE_MAX * 4)}</p>"
    hint = hint if field.description else ""
    described = _described(name, hint=bool(hint), error=error)
    needs = " required" if field.required else ""
    if field.kind in ("boolean", "multiselect"):
        return (
            f"<div class='field'><fieldset id='{name}' tabindex='-1'{described}><legend>{label}</legend>{hint}"
            f"{_error(name, error)}{_choices(name, field, sent)}</fieldset></div>"
        )
    head = f"<div class='field'><label for='{name}'>{label}</label>{hint}{_error(name, error)}"
    if field.kind == "select":
        chosen = (
            sent[:1] if sent is not None else [str(n) for n, o in enumerate(field.options) if o.value == field.default]
        )
        options = "".join(
            f"<option value='{n}'{' selected' if str(n) in chosen else ''}>{_plain(option.label)}</option>"
            for n, option in enumerate(field.options)
        )
        options = f"<option value=''>–</option>{options}"
        return f"{head}<select id='{name}' name='{name}'{needs}{described}>{options}</select></div>"
    text = sent[0] if sent else "" if sent is not None else _default(field.default)
    described = _described(name, hint=bool(hint), error=error, spelled=bool(_unseen(text)))
    if field.kind == "textarea":
        return (
            f"{head}<textarea id='{name}' name='{name}' dir='auto'{needs}{described}>\n{escape(text)}</textarea>"
            f"{_spelled(name, text)}</div>"
        )
    kind = "date" if field.kind == "date" else "text"
    mode = {"integer": " inputmode='numeric'", "number": " inputmode='decimal'"}.get(field.kind, " dir='auto'")
    value = escape(text, quote=True)
    entry = f"<input id='{name}' name='{name}' type='{kind}' value='{value}'{mode}{needs}{described}>"
    return f"{head}{entry}{_spelled(name, text)}</div>"


def _choices(name: str, field: Field, sent: list[str] | None) -> str:
    if field.kind == "boolean":
        chosen = sent[:1] if sent is not None else [{True: "true", False: "false"}.get(field.default, "")]
        pairs = [("true", "Yes"), ("false", "No")]
        kind = "radio"
    else:
        default = field.default if isinstance(field.default, list) else []
        chosen = sent if sent is not None else [str(n) for n, o in enumerate(field.options) if o.value in default]
        pairs = [(str(n), option.label) for n, option in enumerate(field.options)]
        kind = "checkbox"
    return "".join(
        f"<label><input type='{kind}' name='{name}' value='{value}'{' checked' if value in chosen else ''}> "
        f"<bdi>{shown(label, LINE_MAX)}</bdi></label>"
        for value, label in pairs
    )


def _default(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _error(name: str, error: str | None) -> str:
    return "" if error is None else f"<p class='error' id='{name}-error'>{shown(error, LINE_MAX)}</p>"


def _spelled(name: str, text: str) -> str:
    found = _unseen(text)
    if not found:
        return ""
    named = [f"U+{ord(one):04X} {unicodedata.name(one, '').lower()} ({count:,})" for one, count in found.most_common()]
    more = f", and {len(named) - NAMED_MAX} others" if len(named) > NAMED_MAX else ""
    return (
        f"<div class='warning' id='{name}-odd'><p>This text has characters that cannot be seen, or that turn the "
        f"writing direction: {shown(', '.join(named[:NAMED_MAX]), SHOWN_MAX)}{more}. Spelled out, it is:</p>"
        f"<pre tabindex='0'>{shown(text, SHOWN_MAX)}</pre></div>"
    )


def _unseen(text: str) -> Counter[str]:
    """A text above the limit cannot be sent."""
    text = text[:TEXT_CHARACTERS_MAX]
    if _is_clear(text):
        return Counter()
    return Counter(one for n, one in enumerate(text) if _is_odd(text, n))


def _described(name: str, *, hint: bool, error: str | None, spelled: bool = False) -> str:
    ids = [f"{name}-{what}" for what, there in (("hint", hint), ("error", error), ("odd", spelled)) if there]
    described = f" aria-describedby='{' '.join(ids)}'" if ids else ""
    return f"{described} aria-invalid='true'" if error else described


def _facts(question: Question, form: Form) -> str:
    facts = [
        ("Workflow", question.workflow_id),
        ("From", form.source),
        ("Step", question.step_key),
        ("Execution", question.execution_id),
        ("Asked", _time(question.asked_at_us)),
        ("Until", None if question.expires_at_us is None else _time(question.expires_at_us)),
    ]
    listed = "".join(f"<dt>{name}</dt><dd><bdi>{shown(text, LINE_MAX)}</bdi></dd>" for name, text in facts if text)
    return f"<dl class='facts'>{listed}</dl>"


def _verdict(answer: bytes) -> str:
    value = json.loads(answer)
    decision = value.get(APPROVED) if isinstance(value, dict) else value
    if isinstance(decision, bool):
        return "Approved" if decision else "Rejected"
    return "Answered"


def _json(value: Any) -> str:
    if isinstance(value, str):
        return f"<pre tabindex='0' dir='auto'>{shown(value, SHOWN_MAX)}</pre>"
    if isinstance(value, dict) and 0 < len(value) <= 30 and all(_is_plain(one) for one in value.values()):
        rows = "".join(
            f"<dt><bdi>{shown(name, LINE_MAX)}</bdi></dt>"
            f"<dd><bdi>{shown(one if isinstance(one, str) else json.dumps(one), LINE_MAX * 4)}</bdi></dd>"
            for name, one in value.items()
        )
        return f"<dl>{rows}</dl>"
    return f"<pre tabindex='0'>{shown(json.dumps(value, ensure_ascii=False, indent=2), SHOWN_MAX)}</pre>"


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= LINE_MAX)


def _time(at_us: int) -> str:
    try:
        return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError):
        return "never"


def shown(text: str, most: int) -> str:
    """Escapes untrusted text."""
    left = len(text) - most
    text = text[:most]
    if _is_clear(text):
        said = escape(text, quote=True)
    else:
        said = "".join(
            f"<span class='odd'>U+{ord(one):04X}</span>" if _is_odd(text, n) else escape(one, quote=True)
            for n, one in enumerate(text)
        )
    return said + (f"{_CUT} … ({left:,} more characters)</span>" if left > 0 else "")


def _is_clear(text: str) -> bool:
    return text.translate(_BREAKS).isprintable() and _UNSEEN.search(text) is None


def _is_odd(text: str, n: int) -> bool:
    one = text[n]
    if one == "\r":
        return text[n + 1 : n + 2] != "\n"
    if one in "\n\t" or (one.isprintable() and not _UNSEEN.match(one)):
        return False
    if one in "\u200c\u200d":  # they join letters of some scripts, and emoji; ASCII needs none
        return any(beside.isascii() for beside in (text[n - 1 : n], text[n + 1 : n + 2]))
    return unicodedata.category(one) != "Zs"  # spaces of other scripts


def _plain(text: str) -> str:
    """Escapes like `shown`, without markup."""
    said = "".join("\ufffd" if _is_odd(text, n) else one for n, one in enumerate(text[:LINE_MAX]))
    return escape(f"{said}…" if len(text) > LINE_MAX else said, quote=True)
