"""The settings of a server: a TOML file, then the environment, then the command line, whose values win."""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_origin

import msgspec
from msgspec import Meta

from perdure.engine.base.settings import EngineSettings, Seconds, check_setting
from perdure.server.access.cors import checked_origins
from perdure.wire.base import limits
from perdure.wire.base.errors import BadRequest
from perdure.wire.base.wording import did_you_mean

PREFIX: Final = "PERDURE_"
FILE_VARIABLE: Final = "PERDURE_SETTINGS"
# Variables that are not settings of a server.
_OTHERS: Final = frozenset({"PERDURE_URL", "PERDURE_API_KEY", "PERDURE_DEPLOYMENT", *limits.VARIABLES.values()})

_OF_KUBERNETES: Final = re.compile(
    r"\w+_SERVICE_HOST|\w+_SERVICE_PORT(_\w+)?|\w+_PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?"
)
"""Variables that Kubernetes gives to each container, for each Service of the namespace, such as one named `perdure`."""
_PORT_OF_KUBERNETES: Final = ("tcp://", "udp://", "sctp://")
"""Beginnings of the value of `*_PORT`."""

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1_024, le=1 << 30)]


class Settings(EngineSettings, frozen=True, kw_only=True):
    store: str = "perdure.db"
    """The database: a path, `sqlite:<path>`, or `postgresql://…`."""
    host: str = "127.0.0.1"
    """The address to listen on. Addresses other than loopback need a key that is not for development."""
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    """The port; 0 takes a free one."""
    insecure_local: bool = False
    """No keys: every caller on loopback may do everything."""
    hosts: tuple[str, ...] = ()
    """Other names of a server on loopback, as of a proxy."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may read answers (CORS): `https://app.example.com`. On loopback, pages of loopback
    origins may call without reading."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose `X-Forwarded-For` is trusted."""
    metrics_open: bool = False
    """Show `/metrics` of all projects without a key."""
    log_level: str = "INFO"
    """The lowest level: DEBUG, INFO, WARNING or ERROR."""
    log_format: str = "json"
    """`json` (one object a line) or `text`."""

    request_bytes_max: Bytes = 32 << 20
    """The largest body that carries values."""
    in_flight_bytes_max: Bytes = 256 << 20
    """All bodies in progress. Callers without a key share one eighth."""
    in_flight_per_address_bytes_max: Bytes = 128 << 20
    """The same for one address."""
    url_bytes_max: Bytes = 16 << 10
    """The longest URL."""
    header_bytes_max: Bytes = 64 << 10
    """All headers of a request."""
    header_seconds: Seconds = 10.0
    """The time limit for the headers."""
    body_seconds: Seconds = 30.0
    """The time limit for the body."""
    write_seconds: Seconds = 20.0
    """A caller that reads nothing for this long is cut off."""
    keep_alive_seconds: Seconds = 75.0
    """How long an idle connection stays open."""
    drain_seconds: Seconds = 20.0
    """How long requests may take to finish after SIGTERM."""
    connections_max: Count = 10_000
    """Open connections. A new one replaces the oldest without a key, or is refused."""
    connections_per_address_max: Count = 5_000
    """The same for one address. Addresses in `proxies` are exempt."""

    poll_seconds_max: Seconds = 60.0
    """The longest wait of one request. The caller may ask again."""
    stream_seconds_max: Seconds = 900.0
    """The longest stream. A client able to reconnect then does, with `Last-Event-ID`."""
    stream_comment_seconds: Seconds = 15.0
    """How often a silent stream sends a comment."""
    streams_max: Count = 5_000
    """Open streams in all."""
    streams_per_key_max: Count = 100
    """Open streams of one key."""

    auth_cache_seconds: Annotated[float, Meta(ge=0, le=30)] = 30.0
    """How long a key is cached; a deleted key may work for as long. Open streams look it up again as often."""
    auth_failures_max: Count = 20
    """Wrong keys or passwords from one address, or for one e-mail, in a burst. Then one every few seconds."""
    signup: bool = False
    """Anyone may sign up without an invitation, and make projects. E-mails are not verified."""
    session_hours: Annotated[float, Meta(gt=0, le=8_784)] = 24.0
    """How long a user stays signed in."""
    cookie_secure: bool | None = None
    """Send session cookies over TLS only. Default: yes, except on loopback without TLS."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_origins(self.origins)


def load(
    arguments: Mapping[str, object] | None = None,
    *,
    file: str | None = None,
    environ: Mapping[str, str] | None = None,
    otherwise: Mapping[str, object] | None = None,
) -> Settings:
    """`arguments` come from the command line, where None is absent. `otherwise` replaces defaults."""
    environ = os.environ if environ is None else environ
    file = file or environ.get(FILE_VARIABLE)
    values: dict[str, Any] = dict(otherwise or {})
    if file is not None:
        values.update(_from_file(Path(file)))
    values.update(_from_environment(environ))
    for name, value in (arguments or {}).items():
        if value is not None:
            values[name] = _convert(name, value, name, strict=True)
    settings = msgspec.convert(values, Settings)
    if settings.log_format not in ("json", "text"):
        raise BadRequest(f"Setting log_format must be 'json' or 'text', got {settings.log_format!r}.")
    if settings.log_level.upper() not in LEVELS:
        raise BadRequest(f"Setting log_level must be one of {', '.join(LEVELS)}, got {settings.log_level!r}.")
    return settings


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadRequest(f"The settings file {str(path)!r} cannot be read: {error}") from error
    return {name: _convert(name, value, f"{name} in {str(path)!r}", strict=True) for name, value in values.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in _OTHERS or variable == FILE_VARIABLE:
            continue
        if _is_of_kubernetes(variable, text):
            continue
        name = variable.removeprefix(PREFIX).lower()
        _check_name(name, variable)
        kind = _TYPES[name]
        value: object = text
        if kind == tuple[str, ...]:
            value = _parts(text)
        elif get_origin(kind) is dict:
            value = dict(_pair(part, variable) for part in _parts(text))
        values[name] = _convert(name, value, variable, strict=False)
    return values


def _is_of_kubernetes(variable: str, text: str) -> bool:
    if variable.endswith("_PORT") and text.startswith(_PORT_OF_KUBERNETES):
        return True
    return _OF_KUBERNETES.fullmatch(variable) is not None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pair(part: str, variable: str) -> tuple[str, str]:
    name, said, value = part.rpartition("=")
    if not said:
        raise BadRequest(f"Setting {variable}: Expected NAME=VALUE, with commas between several, got {part!r}.")
    return name.strip(), value.strip()


def _convert(name: str, value: object, where: str, *, strict: bool) -> object:
    _check_name(name, where)
    return check_setting(where, value, _TYPES[name], strict=strict)


def _check_name(name: str, where: str) -> None:
    if name in _TYPES:
        return
    raise BadRequest(f"The setting {where!r} does not exist.{did_you_mean(name, _TYPES)}")


_TYPES: Final = {field.name: field.type for field in msgspec.structs.fields(Settings)}
