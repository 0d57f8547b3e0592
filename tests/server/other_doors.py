"""Malformed requests to the doors without JSON: the pages' forms, OpenTelemetry's protocol, and streams.

Streams are only refused here: other streams do not end.
"""

import gzip
import random
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.server.requests import UNKNOWN

STREAMS: Final = ("stream_execution", "stream_events", "stream_items")
FORM: Final = b"application/x-www-form-urlencoded"
QUESTION: Final = {
    "_form": {
        "fields": [
            {"key": "sure", "type": "boolean"},
            {"key": "whole", "type": "integer"},
            {"key": "number", "type": "number"},
            {"key": "pick", "type": "select", "options": ["a", "b"]},
            {"key": "text", "type": "textarea"},
            {"key": "missing", "type": "text", "required": True},
        ]
    }
}
"""One field is never sent, so the question stays open, and each form is read to the end."""
FIELDS: Final = b"question=q&f0=true&f1=12&f2=1.5&f3=a&f4=fine%0D%0A&next=%2F&key=KEY&email=a%40b.example&password=p"
BOMB: Final = gzip.compress(b"\0" * (64 << 20), 1)
"""More than eight times what may be unpacked."""


class OtherDoors:
    """Makes malformed requests: breaks a good request somewhere."""

    def __init__(self, random: random.Random, key: str, question: str, words: Sequence[bytes]) -> None:
        self.random = random
        self.key = key.encode()
        self.question = question.encode()
        """The address of a question's page, with a link's token in it."""
        self.words = words
        self.kinds: tuple[Callable[[], bytes], ...] = (self.form, self.spans, self.stream)
        sent = ExportTraceServiceRequest()
        spans = sent.resource_spans.add().scope_spans.add().spans
        for number in range(3):
            one = spans.add(trace_id=b"t" * 16, span_id=bytes([number]) * 8, name="n", start_time_unix_nano=1)
            one.attributes.add().key = "k"
        self._spans = sent.SerializeToString()

    def _broken(self, good: bytes) -> bytes:
        at = self.random.randrange(len(good))
        word = self.random.choice(self.words)
        noise = self.random.randbytes(self.random.randrange(2_000))
        byte = bytes([self.random.randrange(256)])
        return self.random.choice(
            [
                good,
                good[:at],
                good[at:],
                good[:at] + word + good[at:],
                good[:at] + byte + good[at + 1 :],
                noise,
                word,
                b"",
            ]
        )

    def _request(self, line: bytes, headers: Sequence[bytes], body: bytes) -> bytes:
        always = [line + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close", b"Content-Length: %d" % len(body)]
        return b"\r\n".join([*always, *headers, b"", b""]) + body

    def form(self) -> bytes:
        """Make a form that no browser would send: no key is needed to reach the parser."""
        # An address is a password to be hashed, which takes its time; so most name none.
        fields = FIELDS.replace(b"KEY", self.key)
        if self.random.random() < 0.9:
            fields = fields.replace(b"email", b"e-mail")
        body = self.random.choice(
            [
                self._broken(fields),
                self._broken(fields).replace(
                    b"=", self.random.choice([b"==", b"=%00", b"=%ff", b"%3D", b"=%ed%a0%80"])
                ),
                fields.replace(
                    b"next=%2F", b"next=" + self.random.choice([b"//x.example", b"%2F%0d%0aX:y", b"/%5c", b"/" * 9_000])
                ),
                b"a=b&" * self.random.choice([1, 1_999, 2_001, 50_000]),
                b"&" * 50_000,
                b"%" * 50_000,
                fields + b"&" + fields,
                b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\nsk_x\r\n--x--\r\n',
            ]
        )
        kind = self.random.choice(
            [FORM] * 6
            + [FORM + b"; charset=utf-16", b"multipart/form-data; boundary=x", b"application/json", b"", b"\xff"]
        )
        path = self.random.choice(
            [self.question] * 3 + [b"/sign-in"] * 3 + [b"/approve/" + UNKNOWN.encode() + b"/%00", self.question[:-3]]
        )
        good = [b"Sec-Fetch-Site: same-origin"]
        site = self.random.choice(
            [good] * 6 + [[], [b"Sec-Fetch-Site: cross-site"], [b"Sec-Fetch-Site: " + self.words[0]]]
        )
        return self._request(b"POST " + path, [b"Content-Type: " + kind, *site], body)

    def spans(self) -> bytes:
        """Bytes that are no request of OpenTelemetry's."""
        as_json = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"00","spanId":"00","name":"n","kind":1}]}]}]}'
        kind, good = self.random.choice([(b"application/x-protobuf", self._spans), (b"application/json", as_json)])
        body = self._broken(good)
        encoding = self.random.choice([b"identity"] * 4 + [b"gzip"] * 4 + [b"br", b"", b"gzip, gzip"])
        if encoding == b"gzip":
            packed = gzip.compress(body, 1)
            body = self.random.choice([packed, packed, self._broken(packed), packed + packed, body, BOMB])
        kind = self.random.choice([kind] * 6 + [b"text/plain", b"application/x-protobuf; charset=x", b""])
        headers = [b"Content-Type: " + kind, b"Content-Encoding: " + encoding, b"Authorization: Bearer " + self.key]
        return self._request(b"POST /v1/traces", headers, body)

    def stream(self) -> bytes:
        """A stream of nothing, or from no place."""
        path = self.random.choice(
            [
                b"/api/v1/executions/%s/%s" % (name, which)
                for name in (UNKNOWN.encode(), b"x", b"%00", b"%ff", b"a" * 9_000)
                for which in (b"events", b"stream")
            ]
            + [
                b"/api/v1/events/stream?" + query
                for query in (
                    *(b"", b"topic=", b"topic=%ff", b"topic=%00", b"topic=a&topic=b", b"topic=%ed%a0%80"),
                    *(b"workflow_id=w", b"workflow_run_id=" + UNKNOWN.encode(), b"topic=a&last_timestamp=noon"),
                    *(
                        b"topic=a&last_sequence_id=-1",
                        b"topic=a&last_sequence_id=" + b"9" * 30,
                    ),
                    b"topic=a&project_id=" + UNKNOWN.encode(),
                )
            ]
        )
        seen = self.random.choice(
            [[], [b"Last-Event-ID: x"], [b"Last-Event-ID: " + b"9" * 30], [b"Last-Event-ID: 1-\xff"]]
        )
        return self._request(b"GET " + path, [b"Authorization: Bearer " + self.key, *seen], b"")
