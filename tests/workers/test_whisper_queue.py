"""Turns: clients in turn, each client's recordings in order, and no slot lost."""

from __future__ import annotations

import asyncio

import pytest

from llamarunner.workers.whisper_queue import Turns


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_than_the_slots_at_a_time() -> None:
    turns = Turns(2)
    running, most = 0, 0

    async def work() -> None:
        nonlocal running, most
        async with turns.turn("a"):
            running += 1
            most = max(most, running)
            await settle()
            running -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(work())
    assert most == 2


async def test_clients_take_turns() -> None:
    turns, order = Turns(1), []
    held = turns.turn("a")
    await held.__aenter__()

    async def work(client: str, number: int) -> None:
        async with turns.turn(client):
            order.append(f"{client}{number}")
            await settle()

    async with asyncio.TaskGroup() as group:
        for client, number in (("a", 0), ("a", 1), ("b", 0), ("c", 0), ("b", 1)):
            group.create_task(work(client, number))
        await settle()
        await held.__aexit__(None, None, None)
    assert order == ["a0", "b0", "c0", "a1", "b1"]


async def test_who_leaves_the_queue_is_passed_over() -> None:
    turns = Turns(1)
    held = turns.turn("a")
    await held.__aenter__()
    async with asyncio.TaskGroup() as group:
        asked = [turns.turn("b") for _ in range(3)]
        waiting = [group.create_task(turn.__aenter__()) for turn in asked]
        await settle()
        waiting[0].cancel()
        await settle()
        await held.__aexit__(None, None, None)
        await settle()
        assert [task.done() for task in waiting] == [True, True, False]
        waiting[2].cancel()


@pytest.mark.parametrize("late", [False, True])
async def test_a_slot_granted_to_one_who_leaves_goes_on(late: bool) -> None:
    """The grant and the cancellation in the same moment, in either order."""
    turns = Turns(1)
    held = turns.turn("a")
    await held.__aenter__()
    async with asyncio.TaskGroup() as group:
        asked = turns.turn("b")
        leaving = group.create_task(asked.__aenter__())
        await settle()
        if late:
            leaving.cancel()
        await held.__aexit__(None, None, None)
        leaving.cancel()
        await settle()
        assert leaving.cancelled()
        async with asyncio.timeout(1), turns.turn("c"):
            pass
