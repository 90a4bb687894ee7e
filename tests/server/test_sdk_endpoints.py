"""What all channels of LM Studio's sockets do."""

from __future__ import annotations

from collections.abc import Mapping

from llamarunner.server.sdk_endpoints import Channel


async def nowhere(packet: Mapping[str, object]) -> None:
    raise AssertionError


def test_a_stop_is_heard_once_by_all_who_wait_and_by_who_comes_late() -> None:
    channel, heard = Channel(nowhere), list[str]()
    channel.when_stopped(lambda: heard.append("early"))
    assert (channel.stopped, heard) == (False, [])
    channel.stop()
    channel.stop()
    channel.when_stopped(lambda: heard.append("late"))
    assert (channel.stopped, heard) == (True, ["early", "late"])
