"""What is turned away before the app sees it; needs no browser."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lora_sam.app.web.guard import Guard


def ask(headers: dict[str, str], *, local: bool = True, bodies: tuple[bytes, ...] = (b"",)) -> tuple[int, bytes]:
    """Status, and what the app got to read."""
    read: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            read.append(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})

    sent: list[dict[str, Any]] = []
    messages = iter(
        {"type": "http.request", "body": body, "more_body": number + 1 < len(bodies)}
        for number, body in enumerate(bodies)
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(Guard(app, max_bytes=10, local=local)(scope, receive, send))
    return sent[0]["status"], b"".join(read)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:7860"}, 200),
        ({"host": "localhost:7860", "origin": "http://localhost:7860"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "evil.example:7860"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "[::1"}, 421),
        ({}, 421),
        ({"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:9999"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "https://example.org"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "null"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://["}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://[::1:7860"}, 403),
        ({"host": "127.0.0.1:7860", "origin": "http://a]b"}, 403),
        ({"host": "127.0.0.1:7860", "content-length": "11"}, 413),
        ({"host": "127.0.0.1:7860", "content-length": "-1"}, 413),
    ],
)
def test_only_its_own_page_is_answered(headers: dict[str, str], status: int) -> None:
    assert ask(headers)[0] == status


def test_other_names_are_answered_where_it_is_shared() -> None:
    assert ask({"host": "example.org", "origin": "https://example.org"}, local=False)[0] == 200
    assert ask({"host": "example.org", "origin": "https://evil.example"}, local=False)[0] == 403


def test_a_body_without_a_length_is_cut_off() -> None:
    assert ask({"host": "localhost"}, bodies=(b"12345", b"6789"))[1] == b"123456789"
    assert ask({"host": "localhost"}, bodies=(b"12345", b"67890", b"1", b"2"))[1] == b"1234567890"
