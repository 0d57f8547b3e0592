"""Opens pages in the user's browser."""

import os
import sys
import webbrowser


def open_page(address: str) -> bool:
    """False if this session has no browser."""
    has_screen = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
    if sys.platform.startswith("linux") and not has_screen:
        return False  # a browser of the terminal would take this one over
    try:
        return webbrowser.open(address)
    except (OSError, webbrowser.Error):
        return False
