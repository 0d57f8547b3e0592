"""Log lines as JSON. Secrets are redacted by field name and by pattern."""

import json
import logging
import re
import time
from typing import Final

HIDDEN: Final = "[redacted]"

_SECRET_NAME: Final = re.compile(
    r"authorization|cookie|api[-_]?key|token|password|passwd|secret|credential|private[-_]?key", re.IGNORECASE
)
_SECRET_VALUE: Final = re.compile(
    # A key's public id stays.
    r"(?P<key>\bsk_[0-9A-Za-z]{8}_)[0-9A-Za-z]+"
    r"|(?P<session>\bus_)[0-9A-Za-z_-]{43}"
    r"|(?P<bearer>\b(?:Bearer|Basic)\s+)[^\s'\",;)]+"
    r"|(?P<url>[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s/@]+(?=@)"
    r"|(?P<pair>\b[\w-]*(?:api[-_]?key|token|password|passwd|secret|cookie|perdure_session)[\w-]*['\"]?\s*[:=]\s*['\"]?)[^\s'\",;)}]+",
    re.IGNORECASE,
)
# A record's own attributes. Others came as `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def redact(text: str) -> str:
    """`text` without secrets.

    >>> redact("GET /x with Bearer abc")
    'GET /x with Bearer [redacted]'
    """
    return _SECRET_VALUE.sub(lambda found: "".join(group for group in found.groups() if group) + HIDDEN, text)


class JsonFormatter(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}+00:00",
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                line[name] = HIDDEN if _SECRET_NAME.search(name) else _plain(value)
        if record.exc_info:
            line["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def set_up(level: str, form: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(name): HIDDEN if _SECRET_NAME.search(str(name)) else _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact(str(value))
