from __future__ import annotations

import http.client
import socket
from urllib.parse import urlsplit

from perdure.wire.runs.requests import PROTOCOL_VERSION


class BlockingConnection:
    """Failures raise `OSError` or `http.client.HTTPException`."""

    def __init__(self, url: str, key: str | None, *, seconds: float) -> None:
        """`seconds` is the time-out for the connection and for each answer."""
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._prefix = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Perdure-Protocol": str(PROTOCOL_VERSION)}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=seconds)
        self._connection.connect()

    @property
    def socket(self) -> socket.socket | None:
        """None after the server closed the connection."""
        return self._connection.sock

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        self._connection.request("POST", self._prefix + path, body, self._headers)
        response = self._connection.getresponse()
        return response.status, response.read()

    def check_answers(self) -> None:
        """Raise unless an answer arrives."""
        self._connection.request("GET", self._prefix + "/health")
        self._connection.getresponse().read()

    def close(self) -> None:
        self._connection.close()
