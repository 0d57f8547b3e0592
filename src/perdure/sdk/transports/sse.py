class EventParser:
    """Parses server-sent events from pieces of an answer.

    >>> parser = EventParser()
    >>> parser.feed(b"retry: 5\\n\\nid: 7\\nevent: it")
    []
    >>> parser.feed(b"em\\ndata: 1\\n\\n: still here\\n\\n")
    [('7', 'item', b'1')]
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[str, str, bytes]]:
        """Each event has an id, a name and data. Comments and unknown fields are ignored."""
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        found: list[tuple[str, str, bytes]] = []
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            if b"data" in fields:
                id, event = fields.get(b"id", b"").decode(), fields.get(b"event", b"message").decode()
                found.append((id, event, fields[b"data"]))
        return found
