"""Settings from a file, the environment and the command line; and how little a log says."""

import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from perdure.engine.base.settings import EngineSettings
from perdure.engine.engine import Engine
from perdure.server.http.schemas import field_notes
from perdure.server.process.settings import Settings, _is_of_kubernetes, load
from perdure.server.telemetry.logs import HIDDEN, JsonFormatter, TextFormatter, redact
from perdure.store.drivers.sqlite import SQLiteStore
from perdure.wire.base.errors import BadRequest


def test_defaults() -> None:
    assert load(environ={}) == Settings()
    assert Settings().host == "127.0.0.1" and Settings().port == 8080


def test_the_later_place_wins(tmp_path: Path) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text('port = 1\nlease_seconds = 5\nhosts = ["a", "b"]\n[retention_workflows]\nw = 2.5\n')
    environ = {"PERDURE_SETTINGS": str(file), "PERDURE_PORT": "2", "PERDURE_LEASE_SECONDS": "6", "OTHER": "x"}
    settings = load({"port": 3, "store": None}, environ=environ)
    assert (settings.port, settings.lease_seconds, settings.hosts) == (3, 6.0, ("a", "b"))
    assert settings.retention_workflows == {"w": 2.5} and settings.store == "perdure.db"


def test_what_nobody_says_is_decided_by_the_program(tmp_path: Path) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text('log_format = "text"\n')
    json = {"log_format": "json"}
    assert load(environ={}, otherwise={"log_format": "text"}).log_format == "text"
    assert load(environ={}, file=str(file), otherwise=json).log_format == "text"
    assert load(environ={"PERDURE_LOG_FORMAT": "text"}, otherwise=json).log_format == "text"
    assert (
        load({"log_format": "json"}, environ={}, file=str(file), otherwise={"log_format": "text"}).log_format == "json"
    )


def test_the_environment_speaks_text() -> None:
    environ = {"PERDURE_INSECURE_LOCAL": "true", "PERDURE_HOSTS": "a, b,", "PERDURE_HEADER_SECONDS": "2.5"}
    settings = load(environ=environ)
    assert settings.insecure_local is True and settings.hosts == ("a", "b") and settings.header_seconds == 2.5
    days = {"PERDURE_RETENTION_WORKFLOWS": "a=b=2.5, report=7", "PERDURE_RETENTION_STATUSES": "failed=90"}
    settings = load(environ=days)
    assert settings.retention_workflows == {"a=b": 2.5, "report": 7} and settings.retention_statuses == {"failed": 90}
    load(environ={"PERDURE_URL": "x", "PERDURE_API_KEY": "x", "PERDURE_DEPLOYMENT": "x"})


OF_KUBERNETES = {
    "SERVICE_HOST": "10.0.171.239",
    "SERVICE_PORT": "8080",
    "SERVICE_PORT_HTTP_API": "8080",
    "PORT": "tcp://10.0.171.239:8080",
    "PORT_8080_TCP": "tcp://10.0.171.239:8080",
    "PORT_8080_TCP_PROTO": "tcp",
    "PORT_8080_TCP_PORT": "8080",
    "PORT_8080_TCP_ADDR": "10.0.171.239",
    "PORT_53_UDP": "udp://10.0.171.239:53",
}


@pytest.mark.parametrize("service", ["PERDURE", "PERDURE_SERVER"])
def test_variables_of_a_kubernetes_service_are_not_settings(service: str) -> None:
    assert load(environ={f"{service}_{name}": value for name, value in OF_KUBERNETES.items()}) == Settings()


def test_no_setting_has_a_name_that_kubernetes_makes() -> None:
    for field in msgspec.structs.fields(Settings):
        assert not _is_of_kubernetes(f"PERDURE_{field.name.upper()}", "8080"), field.name


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PERDURE_LEASE_SECOND": "1"}, "lease_seconds"),
        ({"PERDURE_PORT": "x"}, "PERDURE_PORT"),
        ({"PERDURE_PORT": "70000"}, "PERDURE_PORT"),
        ({"PERDURE_PORT": "http://10.0.171.239:8080"}, "PERDURE_PORT"),
        ({"PERDURE_PORT_8080": "tcp://10.0.171.239:8080"}, "PERDURE_PORT_8080"),
        ({"PERDURE_SERVICE": "x"}, "PERDURE_SERVICE"),
        ({"PERDURE_AUTH_CACHE_SECONDS": "31"}, "PERDURE_AUTH_CACHE_SECONDS"),
        ({"PERDURE_BODY_SECONDS": "0"}, "PERDURE_BODY_SECONDS"),
        ({"PERDURE_RETENTION_WORKFLOWS": "a=1,b"}, r"PERDURE_RETENTION_WORKFLOWS: Expected NAME=VALUE.*, got 'b'"),
        ({"PERDURE_RETENTION_WORKFLOWS": "a=x"}, "PERDURE_RETENTION_WORKFLOWS: Expected `float`"),
        ({"PERDURE_RETENTION_STATUSES": "lost=1"}, "PERDURE_RETENTION_STATUSES: .*'lost'"),
        ({"PERDURE_LOG_FORMAT": "xml"}, "log_format"),
        ({"PERDURE_LOG_LEVEL": "loud"}, "log_level must be one of DEBUG, INFO, WARNING, ERROR, got 'loud'"),
        ({"PERDURE_SETTINGS": "/nowhere/x.toml"}, "/nowhere/x.toml"),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        load(environ=environ)


NUMBERS = [
    field.name
    for field in msgspec.structs.fields(Settings)
    if field.name == "beat_seconds" or (isinstance(field.default, int | float) and not isinstance(field.default, bool))
]
MAY_BE_ZERO = {"port", "grace_seconds", "retention_days", "auth_cache_seconds"}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e300"])
def test_no_number_is_negative_or_without_end(name: str, value: str) -> None:
    """The error names the setting, the value and the rule."""
    variable = f"PERDURE_{name.upper()}"
    with pytest.raises(
        BadRequest, match=rf"^Setting {variable}: Expected `(int|float)( \\| null)?`.*, got '{value}'\.$"
    ):
        load(environ={variable: value})


@pytest.mark.parametrize("name", sorted({*NUMBERS} - MAY_BE_ZERO))
def test_zero_is_refused_where_it_makes_no_sense(tmp_path: Path, name: str) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text(f"{name} = 0\n")
    with pytest.raises(BadRequest, match=rf"^Setting {name} in .*perdure.toml.*: Expected .* >=? .*, got 0\.$"):
        load(file=str(file), environ={})
    with pytest.raises(BadRequest, match=f"^Setting {name}: Expected .*, got 0"):
        load({name: 0}, environ={})


@pytest.mark.parametrize("name", sorted(MAY_BE_ZERO))
def test_zero_is_taken_where_it_means_something(name: str) -> None:
    assert getattr(load(environ={f"PERDURE_{name.upper()}": "0"}), name) == 0


def test_code_is_held_to_the_same_rules() -> None:
    for values, words in (
        ({"lease_seconds": -5.0}, "Setting lease_seconds: Expected `float` > 0.0, got -5.0."),
        ({"retention_workflows": {"w": -1.0}}, "Setting retention_workflows: Expected `float` >= 0.0"),
        ({"beat_seconds": 7.0}, "beat_seconds must be at most half of lease_seconds.*got 7.0 and 12.0"),
    ):
        for kind in (EngineSettings, Settings):
            with pytest.raises(BadRequest, match=words):
                kind(**values)


@pytest.mark.parametrize(("values", "beat_us"), [({"lease_seconds": 2.0}, 500_000), ({"beat_seconds": 1.5}, 1_500_000)])
async def test_a_worker_beats_four_times_in_a_lease_unless_told_otherwise(values: Any, beat_us: int) -> None:
    store = SQLiteStore(":memory:")
    assert Engine(store, settings=EngineSettings(**values)).beat_us == beat_us
    await store.close()


@pytest.mark.parametrize("text", ["colour = 1", "port = '1'", "port = ", "[port]\nx = 1", "hosts = 'a'"])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text(text)
    with pytest.raises(BadRequest):
        load(file=str(file), environ={})


def test_every_setting_says_what_it_means() -> None:
    notes = field_notes(Settings)
    assert [field.name for field in msgspec.structs.fields(Settings) if field.name not in notes] == []


# --- logs ----------------------------------------------------------------------------------------------------------

SECRET = "x" * 32
CANARY = f"sk_abcdefgh_{SECRET}"


@pytest.mark.parametrize(
    "text",
    [
        CANARY,
        f"key={CANARY}.",
        f"Authorization: Bearer {SECRET}",
        f"{{'api_key': '{SECRET}'}}",
        f"password={SECRET}&x=1",
        f"postgres://user:{SECRET}@host/db",
        f'"token": "{SECRET}"',
        f"perdure_session={SECRET}; cookie: {SECRET}",
    ],
)
def test_secrets_are_redacted(text: str) -> None:
    assert SECRET not in redact(text) and HIDDEN in redact(text)


def test_plain_text_stays() -> None:
    for text in ("GET /api/v1/executions", "Execution '0190' is queued.", "the key of the door", "a: b"):
        assert redact(text) == text


def test_a_log_line_is_one_object() -> None:
    error = ValueError(f"no {CANARY}\nin two lines")
    record = logging.LogRecord("perdure", logging.ERROR, "f.py", 1, "Failed %s\n", (CANARY,), (ValueError, error, None))
    record.error_id = "abc"
    record.authorization = SECRET
    record.request = {"headers": [{"Cookie": SECRET}], "n": 1, CANARY: None}
    text = JsonFormatter().format(record)
    assert "\n" not in text and SECRET not in text.replace(CANARY, "")
    line = json.loads(text)
    assert line["level"] == "ERROR" and line["error_id"] == "abc" and line["authorization"] == HIDDEN
    assert line["request"]["n"] == 1 and "ValueError" in line["traceback"]
    assert SECRET not in TextFormatter().format(record)
