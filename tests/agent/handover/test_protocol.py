"""Messages with descriptors between two processes."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest
import trio

from proxy.agent.handover.protocol import (
    LARGEST,
    HandoverDescriptors,
    HandoverError,
    HandoverOffer,
    HandoverSocket,
    HandoverStep,
    expect,
    last_word,
    receive,
    say,
    send,
)
from tests.agent.handover.rig import ends
from tests.tools.sockets import fds_since, open_fds

OFFER = HandoverOffer(version=2, host="host-a", pid=7, sockets=2)


async def test_messages_arrive_in_order_with_their_descriptors(tmp_path: Path) -> None:
    near, far = ends()
    async with near, far:
        with (tmp_path / "a").open("w") as a, (tmp_path / "b").open("w") as b:
            await send(near, OFFER)
            await send(near, HandoverSocket(kind="upstream", address="unix:/x", family=1, birth=(1, 2, 3, 4)))
            await send(near, HandoverDescriptors(kind="upstream", address="unix:/x"), [a.fileno(), b.fileno()])
            await send(near, HandoverStep(word="ready"))
        assert await receive(far) == (OFFER, [])
        message, descriptors = await receive(far)
        assert isinstance(message, HandoverSocket)
        assert descriptors == []
        assert (message.birth, message.mode, message.owner) == ((1, 2, 3, 4), 0o666, None)
        message, descriptors = await receive(far)
        assert message == HandoverDescriptors(kind="upstream", address="unix:/x")
        assert [os.readlink(f"/proc/self/fd/{each}") for each in descriptors] == [f"{tmp_path}/a", f"{tmp_path}/b"]
        assert not any(os.get_inheritable(each) for each in descriptors)
        for each in descriptors:
            os.close(each)
        assert (await expect(far, "ready")).word == "ready"


async def test_a_message_in_pieces() -> None:
    near, far = ends()
    async with near, far:
        body = b'{"type":"word","word":"ready"}'
        for byte in struct.pack(">I", len(body)) + body:
            await near.send_all(bytes([byte]))
        assert await receive(far) == (HandoverStep(word="ready"), [])


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "the other process is gone"),
        (b"\0\0", "the other process is gone"),
        (b"\0\0\0\5{", "the other process is gone"),
        (struct.pack(">I", LARGEST + 1), f"the other process sends a message of {LARGEST + 1} bytes"),
        (b"\0\0\0\2{]", "the other process says what makes no sense"),
        (b"\0\0\0\2{}", "the other process says what makes no sense"),
        (b"\0\0\0\2\xff\xfe", "the other process says what makes no sense"),
    ],
)
async def test_what_is_no_message(data: bytes, error: str) -> None:
    before = open_fds()
    near, other = socket.socketpair()
    with near, open(os.devnull) as file:
        if data:
            socket.send_fds(near, [data], [file.fileno()])
    async with trio.SocketStream(trio.socket.from_stdlib_socket(other)) as far:
        with pytest.raises(HandoverError, match=error):
            await receive(far)
    assert not fds_since(before), "descriptors of what was no message are closed"


async def test_nobody_to_send_to() -> None:
    near, far = ends()
    await far.aclose()
    async with near:
        with pytest.raises(HandoverError, match="the other process is gone"):
            await send(near, OFFER)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b'\0\0\0\x1e{"type":"word","word":"taken"}', "taken"),
        (b'\0\0\0\x20{"type":"word","word":"taken"}', None),
        (b"\0\0\0\2{]", None),
        (b"\0\0", None),
        (b"", None),
        (b"x" * (LARGEST + 5), None),
    ],
)
async def test_the_last_word_is_whole_or_none(data: bytes, word: str | None) -> None:
    near, far = ends()
    async with near, far:
        if data:
            await near.send_all(data)
        found = last_word(far)
        assert (found and found.word) == word
        assert not say(near, HandoverStep(word="taken")), "nobody listens any more"
        assert say(far, HandoverStep(word="no"))


async def test_the_last_word_of_one_that_is_gone() -> None:
    near, far = ends()
    async with far:
        assert say(near, HandoverStep(word="taken", seconds=3.0))
        await near.aclose()
        assert last_word(far) == HandoverStep(word="taken", seconds=3.0)
        assert not say(far, HandoverStep(word="no"))


async def test_another_word_than_expected() -> None:
    near, far = ends()
    async with near, far:
        await send(near, HandoverStep(word="taken"))
        with pytest.raises(HandoverError, match="does not say 'ready'"):
            await expect(far, "ready")
        await send(near, HandoverStep(word="no", why="it is about to stop"))
        with pytest.raises(HandoverError, match="^it is about to stop$"):
            await expect(far, "ready")
        await send(near, OFFER)
        with pytest.raises(HandoverError, match="does not say 'ready'"):
            await expect(far, "ready")
