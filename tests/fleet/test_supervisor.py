"""The supervisor with real processes: starts, shares, ends, and what happens when children misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.errors import ModelFailed, QueueFull, ServiceUnavailable, ShuttingDown
from llamarunner.events import ModelFailed as FailedEvent
from llamarunner.events import ModelLoading, ModelStarted, ModelStopped
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Manner
from llamarunner.fleet.subject import Subject, unit_name
from llamarunner.fleet.supervisor import GIVEN_UP_SECONDS
from llamarunner.fleet.unit import State
from llamarunner.server.client import Client
from tests.conftest import Fleet, MakeFleet, alive, eventually


async def use(fleet: Fleet, name: str, seconds: float = 0) -> int:
    """Hold a lease for a while; return the port."""
    async with fleet.supervisor.lease(fleet.entry(name), Task.GENERATE) as lease:
        await asyncio.sleep(seconds)
        return lease.endpoint.port


def pid_of(fleet: Fleet, name: str) -> int:
    instance = fleet.supervisor.instance(fleet.entry(name))
    assert instance is not None
    assert instance.child is not None
    return instance.child.pid


def ttl_of(fleet: Fleet, name: str) -> float | None:
    unit = fleet.supervisor.unit(fleet.entry(name))
    assert unit is not None
    return unit.terms.ttl


def state_of(fleet: Fleet, name: str) -> State:
    unit = fleet.supervisor.unit(fleet.entry(name))
    assert unit is not None
    return unit.state


async def test_first_use_starts_the_model_and_the_next_shares_it(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:
        assert await use(fleet, "a") == await use(fleet, "a")
        assert len(fleet.journal("a").facts("start")) == 1
        assert fleet.supervisor.loaded() == ["a"]
        assert [type(event) for event in fleet.events()] == [ModelLoading, ModelStarted]
    assert isinstance(fleet.events()[-1], ModelStopped)


async def test_a_lease_tells_what_it_waited_for(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-slow", "0.3"], "b": []}, max_loaded_models=1) as fleet:
        cold, warm, late = (fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE) for _ in range(3))
        async with cold:
            assert cold.load_seconds > 0.3
            assert abs(cold.queue_seconds) < 0.1
            async with warm:
                assert warm.load_seconds == 0
                assert abs(warm.queue_seconds) < 0.1
            queued = fleet.supervisor.lease(fleet.entry("b"), Task.GENERATE)
            waiting = asyncio.get_running_loop().create_task(queued.__aenter__())
            await asyncio.sleep(0.05)
            assert [instance.entry.id for instance in fleet.supervisor.ready()] == ["a"]
        await waiting
        assert queued.queue_seconds > 0.05
        assert queued.load_seconds > 0
        assert [instance.entry.id for instance in fleet.supervisor.ready()] == ["b"]
        await queued.__aexit__()
        async with late:
            assert late.load_seconds > 0.3


async def test_f12_two_hundred_callers_on_a_cold_model_cause_one_start(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-slow", "0.2"]}) as fleet:
        ports = await asyncio.gather(*(use(fleet, "a") for _ in range(200)))
        assert len(set(ports)) == 1
        assert len(fleet.journal("a").facts("start")) == 1


async def test_caller_that_leaves_the_queue_does_not_cancel_the_load(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-slow", "0.5"]}) as fleet:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(use(fleet, "a"), 0.1)
        await use(fleet, "a")
        assert len(fleet.journal("a").facts("start")) == 1


async def test_readiness_is_noticed_within_20_ms(make_fleet: MakeFleet) -> None:
    """The fake says when it was loaded; the bound is loose for a busy machine, and a slow poll fails it."""
    delays = []
    async with make_fleet({"a": ["--fake-slow", "0.1"]}) as fleet:
        for _ in range(5):
            await use(fleet, "a")
            delays.append(time.monotonic() - fleet.journal("a").facts("loaded")[-1]["at"])
            await fleet.supervisor.stop(fleet.entry("a"))
    assert sorted(delays)[len(delays) // 2] < 0.05


async def test_f04_model_that_never_becomes_ready_is_killed_and_all_waiters_are_told(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-never"]}, load_stall_seconds=0.5) as fleet:
        outcomes = await asyncio.gather(*(use(fleet, "a") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(outcome, ModelFailed) and outcome.retry_after for outcome in outcomes)
        (start,) = fleet.journal("a").facts("start")
        assert not alive(start["pid"])
        assert state_of(fleet, "a") is State.ERROR


@pytest.mark.parametrize(
    ("switches", "told"),
    [
        (["--fake-exit", "1"], "exit code 1"),
        (["--fake-exit", "127"], "exit code 127"),
        (["--fake-signal", str(int(signal.SIGILL))], "signal 4 (SIGILL)"),
        (
            ["--fake-exit", "1", "--fake-print", "unknown model architecture: 'gpt9'"],
            "does not know its architecture 'gpt9'",
        ),
        (["--fake-exit", "1", "--fake-print", "invalid magic characters"], "its file is not a GGUF model"),
        (["--fake-no-such-flag"], "--fake-no-such-flag"),
        *(
            (["--fake-exit", "1", "--fake-print", f"error: the model could not be loaded: RuntimeError: {said}"], cause)
            for said, cause in (
                ("Variable 'decoder/weight' has an invalid payload size", ": its file is truncated"),
                ("File model.bin is incomplete: failed to read a buffer", ": its file is truncated"),
                ("Unsupported model binary version", "RuntimeError: Unsupported model binary version"),
                ("Unable to open file 'model.bin' in model '/home/me/x'", "open file 'model.bin' in model"),
                ("Unable to open C:\\Users\\me", ": RuntimeError: Unable to open"),
            )
        ),
    ],
)
async def test_f05_child_that_exits_while_loading_fails_at_once_with_the_cause(
    make_fleet: MakeFleet, switches: list[str], told: str
) -> None:
    async with make_fleet({"a": switches}) as fleet:
        with pytest.raises(ModelFailed) as failure:
            await use(fleet, "a")
        assert told in failure.value.message
        assert "/" not in failure.value.message
        event = fleet.events()[-1]
        assert isinstance(event, FailedEvent)
        assert told in event.cause


async def test_what_a_dead_child_said_is_not_in_the_servers_log(
    make_fleet: MakeFleet, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be parts of prompts; the log of the model has it, and at level debug the server's too."""
    caplog.set_level("INFO", "llamarunner")
    switches = ["--fake-exit", "1", "--fake-print", "what somebody asked"]
    async with make_fleet({"a": switches, "b": switches}) as fleet:
        with pytest.raises(ModelFailed):
            await use(fleet, "a")
        assert "what somebody asked" not in caplog.text
        assert "a failed: its process ended with exit code 1; GET /v1/models/a/logs has its words" in caplog.text
        caplog.set_level("DEBUG", "llamarunner")
        with pytest.raises(ModelFailed):
            await use(fleet, "b")
        assert "what somebody asked" in caplog.text


async def test_f06_load_that_runs_out_of_memory_evicts_the_idle_and_tries_once_more(make_fleet: MakeFleet) -> None:
    oom = ["--fake-signal", str(int(signal.SIGKILL))]
    async with make_fleet({"a": [], "b": oom}) as fleet:
        await use(fleet, "a")
        with pytest.raises(ModelFailed, match="memory"):
            await use(fleet, "b")
        assert len(fleet.journal("b").facts("start")) == 2
        assert fleet.supervisor.loaded() == []


async def test_f08_model_that_cannot_fit_is_refused_before_it_is_started(make_fleet: MakeFleet) -> None:
    """No machine has room for a context of two thousand million tokens."""
    async with make_fleet({"a": []}) as fleet:
        terms = fleet.supervisor._terms(Subject(fleet.entry("a"), Task.GENERATE))
        assert terms.bytes_needed > fleet.entry("a").size
        fleet.supervisor._schedule._memory = lambda: terms.bytes_needed - 1
        with pytest.raises(ServiceUnavailable, match="Insufficient memory"):
            await use(fleet, "a")
        assert fleet.journal("a").facts("start") == []


async def test_f09_child_that_ignores_term_is_killed_after_the_grace_with_its_offspring(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-stubborn", "--fake-offspring"]}, stop_grace_seconds=0.3) as fleet:
        await use(fleet, "a")
        child, offspring = pid_of(fleet, "a"), fleet.journal("a").facts("offspring")[0]["pid"]
        began = time.monotonic()
        await fleet.supervisor.stop(fleet.entry("a"))
        assert 0.3 <= time.monotonic() - began < 3
        assert not alive(child)
        await eventually(lambda: not alive(offspring), 1)


async def test_offspring_of_a_child_that_died_by_itself_is_ended_too(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-offspring"]}) as fleet:
        await use(fleet, "a")
        offspring = fleet.journal("a").facts("offspring")[0]["pid"]
        os.kill(pid_of(fleet, "a"), signal.SIGKILL)
        await eventually(lambda: not alive(offspring), 3)


async def test_f10_next_request_after_a_crash_starts_again_and_a_loop_is_broken(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:
        await use(fleet, "a")
        os.kill(pid_of(fleet, "a"), signal.SIGSEGV)
        await eventually(lambda: state_of(fleet, "a") is State.ERROR)
        unit = fleet.supervisor.unit(fleet.entry("a"))
        assert unit is not None
        assert unit.death is not None
        assert "SIGSEGV" in unit.death.cause
        await use(fleet, "a")
        assert len(fleet.journal("a").facts("start")) == 2


async def test_lease_tells_why_the_child_died(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet, fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE) as lease:
        assert await lease.autopsy() is None
        os.kill(pid_of(fleet, "a"), signal.SIGABRT)
        assert "SIGABRT" in (await lease.autopsy() or "")


async def test_f03_silent_child_is_probed_and_killed_and_its_frozen_self_does_not_return(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet, fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE) as lease:
        pid = pid_of(fleet, "a")
        os.kill(pid, signal.SIGSTOP)
        lease.suspect()
        await eventually(lambda: state_of(fleet, "a") is State.ERROR)
        assert not alive(pid)
        assert await lease.autopsy() == "its process stopped answering"


async def test_child_that_answers_a_probe_is_left_alone(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet, fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE) as lease:
        lease.suspect()
        assert await lease.autopsy() is None
        assert fleet.supervisor.loaded() == ["a"]


@asynccontextmanager
async def stuck(make_fleet: MakeFleet) -> AsyncIterator[tuple[Fleet, Callable[[float], Awaitable[None]]]]:
    """A model whose child tells whether it works, and one that leaves it in the middle, which it does not notice."""
    async with make_fleet({"a": []}) as fleet, Client() as client:
        launch = fleet.supervisor._describe
        fleet.supervisor._describe = lambda *asked: replace(launch(*asked), idle="/idle")

        async def leave_behind(seconds: float) -> None:
            body = json.dumps({"fake": {"stuck": seconds}}).encode()
            lease = fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE)
            with contextlib.suppress(ExceptionGroup):
                async with lease, asyncio.TaskGroup() as group:
                    group.create_task(client.request("POST", lease.endpoint, "/completion", body))
                    await fleet.journal("a").wait_for("request")
                    raise ConnectionError

        yield fleet, leave_behind


async def test_work_that_was_left_behind_is_ended_without_blame(make_fleet: MakeFleet) -> None:
    async with stuck(make_fleet) as (fleet, leave_behind):
        await use(fleet, "a")
        first = pid_of(fleet, "a")
        await leave_behind(60)
        await eventually(lambda: not alive(first), 5)
        await eventually(lambda: state_of(fleet, "a") is State.UNLOADED)
        assert fleet.events()[-1] == ModelStopped("a", "cancelled")
        await use(fleet, "a")
        assert [type(event) for event in fleet.events()] == [ModelLoading, ModelStarted]


async def test_work_that_was_left_behind_goes_on_while_somebody_else_has_the_model(make_fleet: MakeFleet) -> None:
    async with stuck(make_fleet) as (fleet, leave_behind):
        await use(fleet, "a")
        first = pid_of(fleet, "a")
        await leave_behind(60)
        await use(fleet, "a", 2 * GIVEN_UP_SECONDS)
        assert state_of(fleet, "a") is State.LOADED
        assert alive(first)
        await eventually(lambda: not alive(first), 5)


async def test_child_that_has_noticed_stays(make_fleet: MakeFleet) -> None:
    async with stuck(make_fleet) as (fleet, leave_behind):
        await use(fleet, "a")
        await leave_behind(0.1)
        instance = fleet.supervisor.instance(fleet.entry("a"))
        assert instance
        assert instance.given_up
        await eventually(lambda: not instance.given_up, 5)
        assert state_of(fleet, "a") is State.LOADED


async def test_closing_does_not_wait_for_what_was_left_behind(make_fleet: MakeFleet) -> None:
    async with stuck(make_fleet) as (fleet, leave_behind):
        await use(fleet, "a")
        await leave_behind(60)
        await fleet.supervisor.close()
        assert fleet.events()[-1] == ModelStopped("a", "shutdown")


async def test_f13_start_and_stop_racing_from_fifty_callers_leave_one_child_or_none(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:

        async def caller(number: int) -> None:
            with contextlib.suppress(ServiceUnavailable):
                await (use(fleet, "a") if number % 2 else fleet.supervisor.stop(fleet.entry("a")))

        await asyncio.gather(*(caller(number) for number in range(50)))
        running = [fact["pid"] for fact in fleet.journal("a").facts("start") if alive(fact["pid"])]
        assert len(running) == len(fleet.supervisor.loaded()) <= 1


async def test_f14_request_that_comes_during_an_idle_unload_is_served(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-stubborn"]}, ttl_seconds=0.05, stop_grace_seconds=0.3) as fleet:
        await use(fleet, "a")
        await eventually(lambda: state_of(fleet, "a") is State.STOPPING)
        await use(fleet, "a")
        assert len(fleet.journal("a").facts("start")) == 2


async def test_f15_flood_of_output_without_line_breaks_blocks_nobody_and_is_not_kept(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-flood", "200"]}) as fleet:
        await use(fleet, "a")
        instance = fleet.supervisor.instance(fleet.entry("a"))
        assert instance is not None
        assert instance.child is not None
        kept = instance.child.log.tail(100)
        assert 0 < sum(map(len, kept)) <= 2**20


async def test_f07_dead_childs_port_taken_by_an_impostor_sees_no_request(make_fleet: MakeFleet) -> None:
    seen: list[bytes] = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(100))
        writer.close()

    async with make_fleet({"a": []}) as fleet:
        port = await use(fleet, "a")
        (start,) = fleet.journal("a").facts("start")
        assert start["argv"][start["argv"].index("--port") + 1] == "0"
        os.kill(pid_of(fleet, "a"), signal.SIGKILL)
        await eventually(lambda: state_of(fleet, "a") is State.ERROR)
        async with await asyncio.start_server(impostor, "127.0.0.1", port):
            assert await use(fleet, "a") != port
        assert seen == []


async def test_idle_model_is_unloaded_and_an_explicit_start_is_kept(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": [], "b": []}, ttl_seconds=0.1) as fleet:
        await fleet.supervisor.start(fleet.entry("b"))
        await use(fleet, "a")
        await eventually(lambda: state_of(fleet, "a") is State.UNLOADED)
        assert ModelStopped("a", "idle") in fleet.events()
        assert fleet.supervisor.loaded() == ["b"]


async def test_overrides_of_a_start_hold_until_the_model_is_unloaded(make_fleet: MakeFleet) -> None:
    def contexts() -> list[str]:
        starts = [fact["argv"] for fact in fleet.journal("a").facts("start")]
        return [argv[argv.index("--ctx-size") + 1] for argv in starts]

    async with make_fleet({"a": []}) as fleet:
        entry = fleet.entry("a")
        await use(fleet, "a")
        own = contexts()[0]
        for size, starts in (("512", 2), ("512", 2), ("1024", 3)):
            await fleet.supervisor.start(entry, overrides=ModelSettings(ctx_size=int(size)))
            await use(fleet, "a")
            assert contexts()[-1] == size
            assert len(contexts()) == starts
        await fleet.supervisor.start(entry)
        assert len(contexts()) == 3, "a plain start changes nothing"
        await fleet.supervisor.stop(entry)
        await use(fleet, "a")
        assert contexts() == [own, "512", "1024", own]


async def test_new_settings_turn_nobody_away_who_waits_for_a_load(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-slow", "0.3"]}) as fleet:
        waiting = asyncio.gather(use(fleet, "a"), use(fleet, "a"))
        await fleet.journal("a").wait_for("start")
        supervisor = fleet.supervisor
        other = supervisor._settings.models["a"].merged(ModelSettings(ctx_size=512))
        supervisor.configure(supervisor._settings.model_copy(update={"models": {"a": other}}))
        assert len(await waiting) == 2
        argv = fleet.journal("a").facts("start")[-1]["argv"]
        assert argv[argv.index("--ctx-size") + 1] == "512"


async def test_overriding_a_busy_model_waits_for_its_callers(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:
        async with fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE) as lease:
            first = lease.endpoint.port
            begun = fleet.supervisor.start(fleet.entry("a"), overrides=ModelSettings(parallel=2))
            late = asyncio.gather(use(fleet, "a"))
            await asyncio.sleep(0.05)
            assert not begun.done()
            assert alive(pid_of(fleet, "a"))
        instance = await begun
        assert instance.settings.parallel == 2
        assert await late != [first]


async def test_start_with_a_time_to_live_is_not_kept(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:
        await fleet.supervisor.start(fleet.entry("a"))
        await fleet.supervisor.start(fleet.entry("a"), overrides=ModelSettings(ttl_seconds=0.1))
        await eventually(lambda: state_of(fleet, "a") is State.UNLOADED)
        assert len(fleet.journal("a").facts("start")) == 1


async def test_instances_of_a_model_are_started_used_and_ended_apart(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:
        first = fleet.entry("a")
        second, third = replace(first, instance=2), replace(first, instance=3)
        ports = [(await fleet.supervisor.start(entry)).endpoint for entry in (first, second, third)]
        assert len(set(ports)) == 3
        async with fleet.supervisor.lease(second, Task.GENERATE) as lease:
            assert lease.endpoint == ports[1]
            leaving = asyncio.gather(fleet.supervisor.stop(second))
            await asyncio.sleep(0)
            assert fleet.supervisor.instances(first) == [1, 3]
            assert fleet.supervisor.instances(first, leaving=True) == [1, 2, 3]
        await leaving
        assert fleet.supervisor.instances(first, leaving=True) == [1, 3]
        assert fleet.supervisor.loaded() == ["a"]
        fleet.supervisor.let_go(third)
        await eventually(lambda: fleet.supervisor.instances(first, leaving=True) == [1])
        await fleet.supervisor.start(second)
        await fleet.supervisor.unload(first)
        assert fleet.supervisor.instances(first) == [2], "the first has no part in what is said of the model"
        await fleet.supervisor.start(first)
        await fleet.supervisor.stop(first)
        assert fleet.supervisor.ready() == []


@pytest.mark.parametrize(
    ("instance", "task", "name"),
    [
        (1, Task.GENERATE, "a"),
        (1, Task.EMBED, "a (embed)"),
        (2, Task.GENERATE, "a (instance 2)"),
        (2, Task.EMBED, "a (instance 2, embed)"),
    ],
)
def test_units_have_names_of_their_own(instance: int, task: Task, name: str) -> None:
    assert unit_name(ModelEntry("a", Path("a.gguf"), instance=instance), task) == name


async def test_time_to_live_of_a_request_counts_only_if_it_loads_the_model(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:
        for first_ttl, told in ((None, 3600), (7, 3600)):
            async with fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE, Manner(first_ttl=first_ttl)):
                assert ttl_of(fleet, "a") == told
        await fleet.supervisor.stop(fleet.entry("a"))
        for first_ttl in (7, 9):
            async with fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE, Manner(first_ttl=first_ttl)):
                assert ttl_of(fleet, "a") == 7


async def test_last_use_is_that_of_requests_alone(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:
        entry = fleet.entry("a")
        await fleet.supervisor.start(entry)
        assert fleet.supervisor.last_used(entry) is None
        began = time.time()
        await use(fleet, "a")
        await fleet.supervisor.stop(entry)
        assert began <= (fleet.supervisor.last_used(entry) or 0) <= time.time()


async def test_least_recently_used_model_makes_room(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": [], "b": [], "c": []}, max_loaded_models=2) as fleet:
        for name in ("a", "b", "a", "c"):
            await use(fleet, name)
        assert sorted(fleet.supervisor.loaded()) == ["a", "c"]
        assert ModelStopped("b", "evicted") in fleet.events()


async def test_busy_model_is_not_evicted_and_the_wait_for_room_is_bounded(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": [], "b": []}, max_loaded_models=1, queue_timeout_seconds=0.3) as fleet:
        async with fleet.supervisor.lease(fleet.entry("a"), Task.GENERATE):
            with pytest.raises(ServiceUnavailable, match="no room in time"):
                await use(fleet, "b")
            assert fleet.supervisor.loaded() == ["a"]
        await use(fleet, "b")


async def test_queue_is_bounded(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-slow", "0.3"]}, queue_length=3) as fleet:
        outcomes = await asyncio.gather(*(use(fleet, "a") for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 2


async def test_closing_refuses_newcomers_and_ends_every_child(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": [], "b": ["--fake-never"]}) as fleet:
        await use(fleet, "a")
        loading = asyncio.gather(use(fleet, "b"), return_exceptions=True)
        (start,) = await fleet.journal("b").wait_for("start")
        child = pid_of(fleet, "a")
        await fleet.supervisor.close()
        assert isinstance((await loading)[0], ShuttingDown)
        with pytest.raises(ShuttingDown):
            await use(fleet, "a")
        assert not alive(child)
        assert not alive(start["pid"])


async def test_hurry_skips_the_grace_of_a_stubborn_child(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": ["--fake-stubborn"]}, stop_grace_seconds=30) as fleet:
        await use(fleet, "a")
        closing = asyncio.gather(fleet.supervisor.close())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        fleet.supervisor.hurry()
        await closing
        assert time.monotonic() - began < 5


async def test_embeddings_of_a_chat_model_get_an_instance_of_their_own(make_fleet: MakeFleet) -> None:
    async with make_fleet({"a": []}) as fleet:
        entry = fleet.entry("a")
        async with (
            fleet.supervisor.lease(entry, Task.GENERATE) as chat,
            fleet.supervisor.lease(entry, Task.EMBED) as embed,
        ):
            assert chat.endpoint != embed.endpoint
        assert fleet.supervisor.loaded() == ["a"]
        flags = [fact["argv"] for fact in fleet.journal("a").facts("start")]
        assert ["--embeddings" in argv for argv in flags] == [False, True]
        await fleet.supervisor.stop(entry)
        assert fleet.supervisor.loaded() == []
