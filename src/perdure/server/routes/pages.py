"""The page that a sign-in link opens. It works without JavaScript, and loads only the dashboard's style."""

from html import escape
from typing import Final

_MARK: Final = (
    "<svg width='20' height='20' viewBox='0 0 24 24' fill='none' aria-hidden='true'><path d='M7 15.2V5.5a2 2 0 0 1 "
    "2-2h4.6a5.4 5.4 0 0 1 0 10.8H10.6' stroke='currentColor' stroke-width='3' stroke-linecap='round' "
    "stroke-linejoin='round'/><path d='M7 20.3v.2' stroke='var(--accent-fill)' stroke-width='3.4' "
    "stroke-linecap='round'/></svg>"
)


def link_page(token: str, *, host: str, style: str) -> str:
    """`style` is the path of the dashboard's stylesheet."""
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>Perdure: sign in</title><link rel='stylesheet' href='{escape(style, quote=True)}'></head>"
        f"<body><main class='signin'><div class='row'>{_MARK} <h1>Sign in to Perdure</h1></div>"
        f"<p class='dim'>This server is {escape(host)}. The link signs this browser in, once.</p>"
        "<form class='col gap12' method='post' action='/sign-in'>"
        f"<input type='hidden' name='link' value='{escape(token, quote=True)}'>"
        "<button class='btn pri' type='submit' autofocus>Sign in</button></form></main></body></html>"
    )
