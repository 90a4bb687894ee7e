"""What events tell, and who hears them."""

from __future__ import annotations

from llamarunner.events import Bus, Event, ModelStarted, ModelStopped


def test_an_event_says_itself_as_the_api_does() -> None:
    event = ModelStarted("a", 8080, 1.5, at=1_736_159_400.9)
    assert event.payload() == {
        "event": "model.started",
        "timestamp": "2025-01-06T10:30:00Z",
        "data": {"model_id": "a", "port": 8080, "seconds": 1.5},
    }


async def test_every_subscription_hears_every_event_in_order() -> None:
    bus = Bus()
    with bus.subscribe() as one, bus.subscribe() as two:
        for count in range(3):
            bus.publish(ModelStopped(str(count), "asked"))
        for news in (one, two):
            heard = aiter(news)
            assert [(await anext(heard)) for _ in range(3)] == [ModelStopped(str(n), "asked") for n in range(3)]
            await heard.aclose()


async def test_a_subscription_can_be_to_some_events_alone() -> None:
    bus = Bus()
    with bus.subscribe(["model.started"]) as news:
        for count in range(2000):
            bus.publish(ModelStopped(str(count), "asked"))
        bus.publish(ModelStarted("a", 1, 1.0))
        heard = aiter(news)
        assert (await anext(heard)).name == "model.started"
        assert news.lost == 0
        await heard.aclose()


async def test_a_slow_subscription_loses_its_oldest_events_and_knows_how_many() -> None:
    bus = Bus()
    with bus.subscribe() as slow:
        for count in range(1030):
            bus.publish(ModelStopped(str(count), "asked"))
        heard = aiter(slow)
        assert (await anext(heard)) == ModelStopped("6", "asked")
        assert slow.lost == 6
        await heard.aclose()


async def test_a_listener_misses_nothing_however_slow_others_are() -> None:
    bus = Bus()
    heard: list[Event] = []
    bus.listen(heard.append)
    with bus.subscribe() as slow:
        for count in range(3000):
            bus.publish(ModelStopped(str(count), "asked"))
        assert slow.lost > 0
    assert [event.payload()["data"] for event in heard] == [
        {"model_id": str(n), "reason": "asked"} for n in range(3000)
    ]
