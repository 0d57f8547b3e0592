"""The live page as HTML, which works without JavaScript. It escapes all data from users, and loads only its own style
and script."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final
from urllib.parse import quote

from perdure.wire.executions import Execution, LogLine, Row
from perdure.wire.status import FINAL

VALUE_SHOWN: Final = 300

STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; --line: #8884; --soft: #8882; }
body { max-width: 84rem; margin: 1.5rem auto; padding: 0 1rem; }
header { display: flex; align-items: baseline; gap: 1rem; }
header form { margin-left: auto; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
a { color: LinkText; text-decoration: none; }
a:hover, a:focus { text-decoration: underline; }
table { border-collapse: collapse; width: 100%; font-size: 0.875rem; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.75rem 0.25rem 0; }
th, td { border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; }
td code { font: 0.8125rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
td.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.time { white-space: nowrap; width: 1%; font-variant-numeric: tabular-nums; }
.phase { padding: 0.05rem 0.5rem; border-radius: 1rem; background: var(--soft); white-space: nowrap; }
.completed { background: #2a84; } .failed, .blocked, .held { background: #d334; } .running { background: #38f4; }
.cancelled, .cancelling { background: #aa64; }
.note { opacity: 0.7; }
.bad { color: #c22; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; font-size: 0.875rem; margin: 0.5rem 0; }
dt { opacity: 0.7; }
dd { margin: 0; overflow-wrap: anywhere; }
"""

SCRIPT: Final = """
"use strict";
// The page renders itself on the server; this only asks for it again and puts the new <main> in the old one's place.
async function refresh() {
  try {
    if (!document.hidden) {
      const reply = await fetch(location.href, { credentials: "same-origin" });
      if (reply.ok) {
        const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector("main");
        const old = document.querySelector("main");
        if (fresh && old && fresh.innerHTML !== old.innerHTML) old.replaceWith(document.adoptNode(fresh));
      }
    }
  } catch { /* the server is away: try again */ }
  setTimeout(refresh, 1000);
}
setTimeout(refresh, 1000);
"""


def executions_page(executions: Sequence[Execution], project: str | None = None, *, signed_in: bool = True) -> str:
    """The links keep `project`, because a user may have several."""
    rows = "".join(_execution_row(execution, project) for execution in executions)
    body = (
        "<h2>Newest executions</h2><table><thead><tr><th>execution</th><th>workflow</th><th>phase</th><th>key</th>"
        "<th>created</th><th>took</th><th>attempt</th><th>says</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
        if executions
        else "<p class='note'>No executions yet. Start one: <code>perdure run WORKFLOW --input JSON</code></p>"
    )
    return _page("Perdure", body, project=project, signed_in=signed_in)


def execution_page(
    execution: Execution,
    rows: Sequence[Row],
    logs: Sequence[LogLine],
    more: bool,
    project: str | None = None,
    *,
    signed_in: bool = True,
) -> str:
    facts = [
        ("workflow", execution.workflow_id),
        ("phase", execution.phase.value),
        ("key", execution.key),
        ("deployment", execution.deployment_id),
        ("queue", execution.queue_name),
        ("session", execution.session_id),
        ("worker", execution.assigned_to_worker),
        ("attempt", str(execution.attempt)),
        ("input", _value(bytes(execution.payload))),
        ("result", None if execution.result is None else _value(bytes(execution.result))),
        ("error", execution.error),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts if text)
    if execution.parent_execution_id:
        listed += f"<dt>parent</dt><dd>{_link(execution.parent_execution_id, project)}</dd>"
    journal = "".join(_journal_row(row) for row in rows)
    left_out = "<p class='note'>Only the first rows are shown.</p>" if more else ""
    body = (
        f"<h2>Execution <code>{escape(execution.id)}</code></h2><dl>{listed}</dl>"
        "<h2>Journal</h2><table><thead><tr><th>seq</th><th>at</th><th>what</th><th>key</th><th>of</th><th>attempt</th>"
        f"<th>value</th></tr></thead><tbody>{journal}</tbody></table>{left_out}"
    )
    if logs:
        lines = "".join(
            f"<tr><td class='time'>{_time(line.at_us)}</td><td><code>{escape(line.text)}</code></td></tr>"
            for line in logs
        )
        body += f"<h2>Log</h2><table><tbody>{lines}</tbody></table>"
    title = f"{execution.workflow_id} {execution.id}"
    return _page(title, body, back=True, project=project, signed_in=signed_in)


def sign_in_page(message: str) -> str:
    return _page("Perdure: sign in", f"<p>{escape(message)}</p>", live=False)


def link_page(token: str) -> str:
    return _page(
        "Perdure: sign in",
        "<form method='post' action='/sign-in'><p>This link signs this browser in, once.</p>"
        f"<input type='hidden' name='link' value='{escape(token, quote=True)}'>"
        "<button type='submit' autofocus>Sign in</button></form>",
        live=False,
    )


def _page(
    title: str, body: str, *, back: bool = False, live: bool = True, project: str | None = None, signed_in: bool = False
) -> str:
    top = "/" if project is None else f"/?project={quote(project)}"
    moving = (
        "<script src='/assets/live.js' defer></script><noscript><meta http-equiv='refresh' content='2'></noscript>"
        if live
        else ""
    )
    home = f"<a href='{top}'>all executions</a>" if back else "<span class='note'>live</span>" if live else ""
    if signed_in:
        home += "<form method='post' action='/sign-out'><button type='submit'>Sign out</button></form>"
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(title)}</title><link rel='stylesheet' href='/assets/page.css'>{moving}</head>"
        f"<body><header><h1><a href='{top}'>Perdure</a></h1>{home}</header><main>{body}</main></body></html>"
    )


def _execution_row(execution: Execution, project: str | None) -> str:
    says = escape(execution.error or "")
    if execution.progress is not None and execution.phase not in FINAL:
        says = f"<code>{escape(_value(bytes(execution.progress)))}</code>"
    phase = execution.phase.value
    return (
        f"<tr><td>{_link(execution.id, project)}</td><td>{escape(execution.workflow_id)}</td>"
        f"<td><span class='phase {phase}'>{phase}</span></td><td>{escape(execution.key or '')}</td>"
        f"<td class='time'>{_time(execution.created_at_us)}</td><td class='num'>{_took(execution)}</td>"
        f"<td class='num'>{execution.attempt}</td><td>{says}</td></tr>"
    )


def _journal_row(row: Row) -> str:
    bad = "" if row.ok else " class='bad'"
    value = bytes(row.value)
    shown = "" if value == b"null" else f"<code>{escape(_value(value))}</code>"
    return (
        f"<tr{bad}><td class='num'>{row.seq}</td><td class='time'>{_time(row.at_us)}</td><td>{row.kind.value}</td>"
        f"<td>{escape(row.key or '')}</td><td>{escape(row.name or '')}</td><td class='num'>{row.attempt}</td>"
        f"<td>{shown}</td></tr>"
    )


def _link(id: str, project: str | None) -> str:
    more = "" if project is None else f"&amp;project={quote(project)}"
    return f"<a href='/?execution={quote(id)}{more}'><code>{escape(id)}</code></a>"


def _value(data: bytes) -> str:
    text = data[: VALUE_SHOWN * 4].decode("utf-8", "replace")
    return text if len(text) <= VALUE_SHOWN else text[:VALUE_SHOWN] + "…"


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _took(execution: Execution) -> str:
    if execution.started_at_us is None or execution.completed_at_us is None:
        return ""
    return f"{(execution.completed_at_us - execution.started_at_us) / 1e6:.3f} s"
