"""Documents and files kept in the server's memory."""

import gzip
import hashlib
from collections.abc import Mapping

from perdure.server.http.problems import Header, Reply


class CachedDocument:
    """Callers with the newest copy get a 304."""

    def __init__(self, body: bytes, content_type: str, *, cache: bytes = b"no-cache", packs: bool = True) -> None:
        """Caches must revalidate by default. Not `packs`: the body is compressed already."""
        self._body = body
        self._packed = gzip.compress(body, mtime=0) if packs else None
        self._name = hashlib.blake2b(self._body, digest_size=16).hexdigest().encode()
        self._headers: tuple[Header, ...] = (
            (b"content-type", content_type.encode()),
            (b"cache-control", cache),
            (b"vary", b"Accept-Encoding"),
            (b"x-content-type-options", b"nosniff"),
        )

    def reply(self, asked: Mapping[bytes, bytes], more: tuple[Header, ...] = ()) -> Reply:
        packed = self._packed if _takes_gzip(asked.get(b"accept-encoding", b"")) else None
        etag = b'"%b%b"' % (self._name, b"" if packed is None else b"-gzip")
        headers = (*self._headers, *more, (b"etag", etag))
        if etag in (one.strip() for one in asked.get(b"if-none-match", b"").replace(b"W/", b"").split(b",")):
            return Reply(304, b"", headers)
        body = self._body if packed is None else packed
        if packed is not None:
            headers = (*headers, (b"content-encoding", b"gzip"))
        return Reply(200, body, (*headers, (b"content-length", b"%d" % len(body))))


def _takes_gzip(accepted: bytes) -> bool:
    for one in accepted.lower().split(b","):
        coding, _, weight = one.partition(b";")
        if coding.strip() == b"gzip":
            return weight.replace(b" ", b"").rstrip(b"0") not in (b"q=", b"q=0.")
    return False
