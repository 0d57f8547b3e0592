"""The page that a sign-in link opens. It works without JavaScript, and loads nothing."""

from html import escape


def link_page(token: str) -> str:
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        "<title>Perdure: sign in</title><link rel='stylesheet' href='/assets/approve.css'></head>"
        "<body><h1>Perdure</h1><form method='post' action='/sign-in'><p>This link signs this browser in, once.</p>"
        f"<input type='hidden' name='link' value='{escape(token, quote=True)}'>"
        "<button type='submit' autofocus>Sign in</button></form></body></html>"
    )
