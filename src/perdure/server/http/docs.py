"""The OpenAPI document as a page without scripts."""

from html import escape
from typing import Final

from perdure.server.http.schemas import Json
from perdure.wire.base.errors import error_classes

STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem; }
nav ul { columns: 2; padding-left: 1rem; }
article { border-top: 1px solid #8886; padding: 0.5rem 0 1rem; }
code, pre { font: 0.875rem/1.4 ui-monospace, monospace; }
h3 code { font-size: 1rem; overflow-wrap: anywhere; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
table { border-collapse: collapse; width: 100%; margin: 0.5rem 0; }
th, td { text-align: left; vertical-align: top; padding: 0.2rem 0.75rem 0.2rem 0; border-bottom: 1px solid #8883; }
.note { opacity: 0.75; }
"""


def page(doc: Json) -> str:
    by_tag: dict[str, list[tuple[str, str, Json]]] = {}
    for path, methods in doc["paths"].items():
        for method, operation in methods.items():
            by_tag.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    info = doc["info"]
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{escape(info['title'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])} <span class='note'>{escape(info['version'])}</span></h1>",
        f"<p>{escape(info['description'])} Machine-readable: <a href='/openapi.json'>/openapi.json</a>.</p>",
        "<p>Send <code>Authorization: Bearer sk_…</code>. ",
        'Every error is <code>{"error": …, "error_type": …}</code>.</p>',
        "<nav>",
    ]
    for tag, operations in by_tag.items():
        parts.append(f"<h2>{escape(tag)}</h2><ul>")
        parts.extend(
            f"<li><a href='#{escape(operation['operationId'])}'>{method} <code>{escape(path)}</code></a></li>"
            for method, path, operation in operations
        )
        parts.append("</ul>")
    parts.append("</nav><main>")
    for tag, operations in by_tag.items():
        parts.append(f"<h2>{escape(tag)}</h2>")
        parts.extend(_article(method, path, operation) for method, path, operation in operations)
    parts.append("<h2>Shapes</h2>")
    parts.extend(_shape(name, schema) for name, schema in doc["components"]["schemas"].items())
    parts.append("<h2>Errors</h2><table><tr><th>status</th><th>error_type</th></tr>")
    parts.extend(
        f"<tr><td>{status}</td><td><code>{escape(code)}</code></td></tr>"
        for status, code in sorted((cls.status, cls.code) for cls in error_classes())
    )
    parts.append("</table></main></body></html>")
    return "".join(parts)


def _article(method: str, path: str, operation: Json) -> str:
    id = escape(operation["operationId"])
    parts = [
        f"<article id='{id}'><h3><span class='method'>{method}</span> <code>{escape(path)}</code></h3>",
        f"<p>{escape(operation['summary'])}.</p>",
    ]
    if "description" in operation:
        parts.append(f"<p>{escape(operation['description'])}</p>")
    parts.append(f"<p class='note'>Role: {escape(operation.get('x-role', 'none, no key needed'))}</p>")
    if "parameters" in operation:
        parts.append("<table>")
        parts.extend(
            _row(one["name"], one["schema"], one.get("description", ""), one["required"], one["in"])
            for one in operation["parameters"]
        )
        parts.append("</table>")
    if "requestBody" in operation:
        forms = operation["requestBody"]["content"].items()
        shapes = [_kind(content["schema"]) if "schema" in content else escape(name) for name, content in forms]
        parts.append(f"<p>Body: {' or '.join(shapes)}</p>")
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            shapes = [_kind(content.get("schema", {})) for content in response.get("content", {}).values()]
            parts.append(f"<p>{status}: {', '.join(shapes) or escape(response['description'])}</p>")
    parts.append("</article>")
    return "".join(parts)


def _shape(name: str, schema: Json) -> str:
    parts = [f"<article id='shape-{escape(name)}'><h3><code>{escape(name)}</code></h3>"]
    if "description" in schema:
        parts.append(f"<p>{escape(schema['description'])}</p>")
    if "properties" in schema:
        required = schema.get("required", ())
        parts.append("<table>")
        parts.extend(
            _row(field, inner, inner.get("description", ""), field in required, "")
            for field, inner in schema["properties"].items()
        )
        parts.append("</table>")
    parts.append("</article>")
    return "".join(parts)


def _row(name: str, schema: Json, note: str, required: bool, place: str) -> str:
    words = " ".join(word for word in (place, "required" if required else "") if word)
    return (
        f"<tr><td><code>{escape(name)}</code></td><td>{_kind(schema)}</td>"
        f"<td class='note'>{escape(words)}</td><td>{escape(note)}</td></tr>"
    )


def _kind(schema: Json) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f"<a href='#shape-{name}'>{name}</a>"
    if "anyOf" in schema:
        return " or ".join(_kind(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    if "items" in schema:
        return f"list of {_kind(schema['items'])}"
    kind = schema.get("type", "any JSON")
    words = " or ".join(kind) if isinstance(kind, list) else kind
    return escape(f"{words} ({schema['format']})" if "format" in schema else words)
