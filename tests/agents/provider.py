"""A provider of models that speaks chat completions and responses: plain, streamed, with tool calls; slow, full or
broken if asked.

What it answers comes from scripts. The first word of a conversation's first user message names the script, and its
answers follow one another: which one is wanted is the number of answers that the conversation has already. So a call
that is made again is answered again, and the provider remembers nothing but how often it was asked.

    {"order": [
        {"tools": [["look_up", {"id": "{rest}"}]]},
        {"text": "done", "faults": [{"status": 429, "headers": {"retry-after": "2"}},
                                    {"break_after": 3}]}
    ]}

`{rest}` is what follows the first word. Faults come first, one for each call of that conversation's answer.

Each call is a line in a log, when it begins and when it ends, which survives who is killed. In a process of its own:

    python -m tests.agents.provider --scripts FILE --log FILE --port 8000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from msgspec import Struct, convert

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

CALLER_HEADER = "x-caller"
"""A marker of a caller, to find the caller's requests in the log."""


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """What comes once in the place of an answer: a refusal, or a stream that breaks after so many chunks (an answer
    that is not streamed breaks before its body), or says nothing more."""

    status: int | None = None
    headers: dict[str, str] = {}
    break_after: int | None = None
    silent_after: int | None = None
    end_after: int | None = None


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """An answer of a conversation: text, tool calls (name and arguments), or both."""

    text: str | None = None
    tools: list[tuple[str, dict[str, Any]]] = []
    model: str | None = None
    """The model that the answer names, if not the requested model: gateways have names of their own."""
    faults: list[Fault] = []
    wait_seconds: float = 0.0
    """The delay before the first word."""
    token_seconds: float = 0.0
    """The delay between two chunks of a stream."""


Scripts = Mapping[str, Sequence[Answer]]


class Call(NamedTuple):
    """A line of the log. `what` is "begin", "end", "fault" or "gone" (the caller went away, or was killed)."""

    what: str
    at_us: int
    conversation: str
    turn: int
    streamed: bool
    caller: str
    """What the caller said of itself."""


class Provider:
    """The application. `log` gets a line for each call; without a log the calls are only counted."""

    def __init__(self, scripts: Mapping[str, Any], log: Path | None = None) -> None:
        self.scripts: Scripts = convert(scripts, dict[str, list[Answer]])
        self.calls: list[Call] = []
        self.asked: Counter[tuple[str, int]] = Counter()
        """How often each answer of each conversation was asked for."""
        self.under_way = 0
        self.most_under_way = 0
        self._log = None if log is None else os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            os.close(self._log)
            self._log = None

    def made(self, what: str = "begin") -> list[Call]:
        """The calls of which the log has such a line."""
        return [call for call in self.calls if call.what == what]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            body = await _body(receive)
            if scope["method"] == "POST" and scope["path"].endswith("/chat/completions"):
                await self._complete(scope, json.loads(body), receive, send, _Said)
            elif scope["method"] == "POST" and scope["path"].endswith("/responses"):
                request = json.loads(body)
                request["messages"] = _messages_of(request["input"])
                await self._complete(scope, request, receive, send, _SaidAsResponse)
            else:
                await _refuse(send, 404, f"nothing is served at {scope['path']}")

    async def _complete(
        self, scope: Scope, request: dict[str, Any], receive: Receive, send: Send, kind: type[_Said]
    ) -> None:
        first = next((_text_of(one) for one in request["messages"] if one["role"] == "user"), "")
        name, _, rest = first.partition(" ")
        turn = sum(one["role"] == "assistant" for one in request["messages"])
        script = self.scripts.get(name, ())
        if turn >= len(script):
            await _refuse(send, 400, f"the script {name!r} has no answer {turn}")
            return
        answer = script[turn]
        streamed = bool(request.get("stream"))
        caller = dict(scope["headers"]).get(CALLER_HEADER.encode(), b"").decode()
        asked = self.asked[first, turn]
        self.asked[first, turn] += 1
        fault = answer.faults[asked] if asked < len(answer.faults) else None

        def note(what: str) -> None:
            self._note(Call(what, time.time_ns() // 1_000, first, turn, streamed, caller))

        note("begin")
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        ended = "gone" if fault is None else "fault"
        try:
            await asyncio.sleep(answer.wait_seconds)
            if fault is not None and fault.status is not None:
                await _refuse(send, fault.status, "come back later", fault.headers)
                return
            said = kind(request, answer, rest, turn)
            if streamed:
                await _stream(receive, send, said, answer.token_seconds, fault or Fault())
            else:
                await _plain(send, said, fault)
            ended = "end"
        finally:
            self.under_way -= 1
            note(ended)

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        if self._log is not None:
            os.write(self._log, json.dumps(call).encode() + b"\n")


def read_log(path: Path) -> list[Call]:
    """The calls in a log, in order, without an incomplete last line."""
    if not path.exists():
        return []
    return [Call(*json.loads(line)) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


class _Said:
    """An answer, worded for one request."""

    def __init__(self, request: dict[str, Any], answer: Answer, rest: str, turn: int) -> None:
        self.text = None if answer.text is None else answer.text.replace("{rest}", rest)
        quoted = json.dumps(rest)[1:-1]
        self.tools = [(name, json.dumps(arguments).replace("{rest}", quoted)) for name, arguments in answer.tools]
        self.head = {"id": f"chatcmpl-{turn}", "created": 1_750_000_000, "model": answer.model or request["model"]}
        self.turn = turn
        asked = len(json.dumps(request["messages"])) // 4 + 1
        told = len(self.pieces())
        self.usage = {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}
        self.finish = "tool_calls" if self.tools else "stop"
        self.wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))

    def call(self, n: int) -> dict[str, Any]:
        """A tool call, as a message holds the call."""
        name, arguments = self.tools[n]
        return {"id": f"call-{self.turn}-{n}", "type": "function", "function": {"name": name, "arguments": arguments}}

    def pieces(self) -> list[dict[str, Any]]:
        """What the chunks of a stream add to the message: a word at a time, arguments in halves."""
        found: list[dict[str, Any]] = []
        if self.text is not None:
            words = self.text.split(" ")
            found += [{"content": word if n == 0 else f" {word}"} for n, word in enumerate(words)]
        for n, (_, arguments) in enumerate(self.tools):
            middle = len(arguments) // 2
            call = self.call(n)
            call["function"] = {**call["function"], "arguments": arguments[:middle]}
            found.append({"tool_calls": [{"index": n, **call}]})
            found.append({"tool_calls": [{"index": n, "function": {"arguments": arguments[middle:]}}]})
        return found

    def body(self) -> dict[str, Any]:
        """The whole answer."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.tools:
            message["tool_calls"] = [self.call(n) for n in range(len(self.tools))]
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": self.usage}

    def chunks(self) -> Iterator[dict[str, Any]]:
        """The answer as a stream."""
        head = {**self.head, "object": "chat.completion.chunk"}
        for piece in ({"role": "assistant", "content": ""}, *self.pieces()):
            yield {**head, "choices": [{"index": 0, "delta": piece, "finish_reason": None}]}
        yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]}
        if self.wants_usage:
            yield {**head, "choices": [], "usage": self.usage}


class _SaidAsResponse(_Said):
    """The same as the other protocol has it: items in the place of messages, each begun and done in a stream."""

    def items(self) -> list[dict[str, Any]]:
        """What the answer consists of."""
        found: list[dict[str, Any]] = []
        if self.text is not None:
            content = [{"type": "output_text", "text": self.text, "annotations": []}]
            found.append({"type": "message", "id": f"msg-{self.turn}", "role": "assistant", "content": content})
        for n, (name, arguments) in enumerate(self.tools):
            ids = {"id": f"fc-{self.turn}-{n}", "call_id": f"call-{self.turn}-{n}"}
            found.append({"type": "function_call", **ids, "name": name, "arguments": arguments})
        return [{**item, "status": "completed"} for item in found]

    def body(self) -> dict[str, Any]:
        return self._response("completed", self.items())

    def chunks(self) -> Iterator[dict[str, Any]]:
        yield {"type": "response.created", "response": self._response("in_progress", [])}
        for index, item in enumerate(self.items()):
            at = {"item_id": item["id"], "output_index": index}
            begun: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
            yield {"type": "response.output_item.added", **at, "item": {**item, **begun, "status": "in_progress"}}
            if item["type"] == "message":
                text = {"type": "response.output_text.delta", **at, "content_index": 0, "logprobs": []}
                for piece in self.pieces():
                    if "content" in piece:
                        yield {**text, "delta": piece["content"]}
            else:
                arguments = item["arguments"]
                for half in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
                    yield {"type": "response.function_call_arguments.delta", **at, "delta": half}
            yield {"type": "response.output_item.done", **at, "item": item}
        yield {"type": "response.completed", "response": self.body()}

    def _response(self, status: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        used = {
            "input_tokens": self.usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.usage["total_tokens"],
        }
        return {
            "id": f"resp-{self.turn}",
            "object": "response",
            "created_at": self.head["created"],
            "model": self.head["model"],
            "status": status,
            "output": items,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": used if status == "completed" else None,
        }


def _messages_of(items: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The input of a response as messages: what stands between two results of tools or words of the user is one."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    found: list[dict[str, Any]] = []
    for item in items:
        role = "assistant" if item.get("type") == "function_call" else item.get("role", "tool")
        if role != "assistant" or not found or found[-1]["role"] != role:
            found.append({"role": role, "content": item.get("content", "")})
    return found


async def _plain(send: Send, said: _Said, fault: Fault | None) -> None:
    body = json.dumps(said.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if fault is not None:  # the connection is closed before what was announced has come
        await send({"type": "http.response.body", "body": body[:1], "more_body": True})
        raise _Broken
    await send({"type": "http.response.body", "body": body})


async def _stream(receive: Receive, send: Send, said: _Said, token_seconds: float, fault: Fault) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for n, chunk in enumerate(said.chunks()):
        if n == fault.silent_after:
            await receive()  # until the caller has had enough
            return
        if n == fault.end_after:
            await send({"type": "http.response.body", "body": b""})
            return
        if n == fault.break_after:
            raise _Broken
        await send({"type": "http.response.body", "body": f"data: {json.dumps(chunk)}\n\n".encode(), "more_body": True})
        await asyncio.sleep(token_seconds)
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


class _Broken(Exception):
    """Ends an answer that has begun: the server closes the connection."""


async def _refuse(send: Send, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
    body = json.dumps({"error": {"message": message, "type": "refused", "code": None, "param": None}}).encode()
    said = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    plain = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*plain, *said]})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


class _Server(uvicorn.Server):
    """A server among others in its process: signals are not its business."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(provider: Provider) -> AsyncIterator[str]:
    """Serve a provider in this loop for the length of the block. Yields the address for clients."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        server = _Server(_config(provider))
        task = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started:  # noqa: ASYNC110  # it has no event for it
            await asyncio.sleep(0.001)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        finally:
            server.should_exit = server.force_exit = True
            await task
            provider.close()


def _config(provider: Provider, port: int = 0) -> uvicorn.Config:
    # A broken answer is an exception to uvicorn, which would tell of it.
    return uvicorn.Config(provider, host="127.0.0.1", port=port, log_level="critical", lifespan="on")


def main() -> None:
    """Serve until somebody ends the process."""
    parser = argparse.ArgumentParser(description="A provider of models for tests.")
    parser.add_argument("--scripts", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    provider = Provider(json.loads(options.scripts.read_text()), options.log)
    uvicorn.Server(_config(provider, options.port)).run()


if __name__ == "__main__":
    main()
