"""Settings from a file, the environment and the command line; and how little a log says."""

import json
import logging
from pathlib import Path

import msgspec
import pytest

from perdure.server.logs import HIDDEN, JsonFormatter, TextFormatter, redact
from perdure.server.schemas import field_notes
from perdure.server.settings import Settings, load
from perdure.wire.errors import BadRequest


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


def test_the_environment_speaks_text() -> None:
    environ = {"PERDURE_INSECURE_LOCAL": "true", "PERDURE_HOSTS": "a, b,", "PERDURE_HEADER_SECONDS": "2.5"}
    settings = load(environ=environ)
    assert settings.insecure_local is True and settings.hosts == ("a", "b") and settings.header_seconds == 2.5
    load(environ={"PERDURE_URL": "x", "PERDURE_API_KEY": "x", "PERDURE_DEPLOYMENT": "x"})


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"PERDURE_LEASE_SECOND": "1"}, "lease_seconds"),
        ({"PERDURE_PORT": "x"}, "PERDURE_PORT"),
        ({"PERDURE_PORT": "70000"}, "PERDURE_PORT"),
        ({"PERDURE_AUTH_CACHE_SECONDS": "31"}, "PERDURE_AUTH_CACHE_SECONDS"),
        ({"PERDURE_BODY_SECONDS": "0"}, "PERDURE_BODY_SECONDS"),
        ({"PERDURE_LOG_FORMAT": "xml"}, "log_format"),
        ({"PERDURE_SETTINGS": "/nowhere/x.toml"}, "/nowhere/x.toml"),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        load(environ=environ)


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
