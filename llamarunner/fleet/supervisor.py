"""The supervisor: owns every child and its task, and lends them out.

It feeds facts to the `Schedule` and carries out the effects that come back, all in one synchronous step, so that the
schedule and the world cannot drift apart. A child lives in one task, `_live`: to stop a child is to cancel its task,
and `Child`'s own exit does the rest.

`lease` is the only way to use a model:

    async with supervisor.lease(entry, Task.GENERATE) as lease:
        ... talk to lease.endpoint ...

`start` and `stop` are for the owner. A start may override settings; that holds until the model is unloaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Self

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings, Settings
from llamarunner.errors import LlamaRunnerError, ModelNotLoaded, NotReady
from llamarunner.events import Bus, ModelFailed, ModelLoading, ModelStarted, ModelStopped
from llamarunner.fleet import memory
from llamarunner.fleet.child import Child, LoadFailed, Probe
from llamarunner.fleet.keeping import keep
from llamarunner.fleet.launch import Launch, Task
from llamarunner.fleet.lease import AS_IT_IS, Instance, Lease, Manner
from llamarunner.fleet.output import Output
from llamarunner.fleet.progress import Progress, explain, progress
from llamarunner.fleet.runtimes import whisper
from llamarunner.fleet.runtimes.llama_server import context_size
from llamarunner.fleet.schedule import Schedule
from llamarunner.fleet.subject import Subject, changed, file_of, of_process, rules_of, runs, unit_name
from llamarunner.fleet.unit import Death, Effect, Grant, Refuse, Spawn, State, Stop, Terms, Ticket, Unit

log = logging.getLogger("llamarunner.fleet")

SUSPECT_PROBES = 2
SUSPECT_PATH = "/v1/models"  # every runtime has it
GIVEN_UP_SECONDS = 0.8  # for a child to find that nobody waits any more

Describe = Callable[[ModelEntry, Task, ModelSettings], Launch]


class Supervisor:
    """Use it as `async with Supervisor(…) as supervisor`; leaving ends every child.

    `describe` turns a model, its task and its settings into a launch (it may block), `probe` asks a child whether it is
    ready.
    """

    def __init__(self, settings: Settings, describe: Describe, probe: Probe, bus: Bus) -> None:
        self._settings = settings
        self._rules = settings.supervisor
        self._describe = describe
        self._probe = probe
        self._bus = bus
        self._schedule = Schedule(rules_of(settings), self._free_memory, lambda: random.uniform(0.8, 1.2))
        self._subjects: dict[str, Subject] = {}
        self._instances: dict[str, Instance] = {}
        self._outputs: dict[str, Output] = {}  # by model id
        self._callers: dict[Ticket, asyncio.Future[Instance]] = {}
        self._group = asyncio.TaskGroup()
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._keeper = self._group.create_task(keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        self._keeper.cancel()
        await self._group.__aexit__(None, None, None)

    # ── for callers ────────────────────────────────────────────────────────────────────────────────────────────────

    def lease(self, entry: ModelEntry, task: Task, manner: Manner = AS_IT_IS) -> Lease:
        """Borrow a model, starting it if need be, and anew if it runs otherwise than in this manner."""
        return Lease(self, entry, task, manner)

    def start(
        self,
        entry: ModelEntry,
        task: Task = Task.GENERATE,
        overrides: ModelSettings | None = None,
        manner: Manner | None = None,
    ) -> asyncio.Future[Instance]:
        """Load a model and keep it loaded until it is stopped by hand, or idle for the `ttl_seconds` of the overrides;
        another manner may say otherwise.

        The future tells when it is ready, and need not be awaited; it fails as `lease` does. A process that runs with
        other settings than the overrides make is ended once its callers are done, and the model starts anew.
        Raises ModelNotLoaded for a broken file.
        """
        ticket = object()
        manner = manner or Manner(keep=overrides is None or overrides.ttl_seconds is None)
        started = self._ask(ticket, entry, task, manner, overrides)
        started.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is fine to look away
        started.add_done_callback(lambda _: self._leave(ticket))
        return started

    def let_go(self, entry: ModelEntry, *, alone: bool = False) -> None:
        """Unload a model as soon as it is idle, and do not wait for that.

        That is all of its instances, unless the entry means one beside the first; or `alone` the one that it means.
        """
        for name, subject in self._units_of(entry, alone):
            if self._awake(name):
                subject.ttl = 0.0
            self._carry_out(self._schedule.let_go(name, time.monotonic()))

    async def stop(self, entry: ModelEntry, force: bool = False) -> None:
        """Unload a model, after its callers are done or at once; returns when its processes are gone.

        That is all of its instances, unless the entry means one beside the first.
        """
        await self._stop(self._units_of(entry, alone=False), force)

    async def unload(self, entry: ModelEntry) -> None:
        """Unload the instance that the entry means, as `stop` does, and no other."""
        await self._stop(self._units_of(entry, alone=True), force=False)

    async def _stop(self, units: Iterable[tuple[str, Subject]], force: bool) -> None:
        lives = []
        for name, subject in units:
            subject.overrides = subject.ttl = None
            lives += [instance for instance in [self._instances.get(name)] if instance]
            self._carry_out(self._schedule.stop(name, time.monotonic(), force))
        for instance in lives:
            await instance.gone.wait()

    def configure(self, settings: Settings) -> None:
        """Take over new settings. Instances that they change are unloaded once their callers are done.

        Who waits for one gets the next, with the new settings.
        """
        before, self._settings, self._rules = self._settings, settings, settings.supervisor
        self._schedule.rules = rules_of(settings)
        now = time.monotonic()
        for name, instance in list(self._instances.items()):
            if changed(before, settings, instance):
                self._carry_out(self._schedule.renew(name, now, in_any_case=True))
        self._carry_out(self._schedule.tick(now))

    def reconcile(self, known: Callable[[str], ModelEntry | None]) -> None:
        """Unload, once their callers are done, the models whose file is gone, or is another one by now.

        `known` tells what the catalog has under an id.
        """
        now = time.monotonic()
        for name, instance in list(self._instances.items()):
            entry = known(instance.entry.id)
            if entry is None or file_of(entry) != file_of(instance.entry):
                self._carry_out(self._schedule.stop(name, now))

    def loaded(self) -> list[str]:
        """The ids of the models that are ready to use."""
        return list(dict.fromkeys(instance.entry.id for instance in self.ready()))

    def ready(self) -> list[Instance]:
        """The processes that are ready to use."""
        units = self._schedule.units
        return [instance for name, instance in self._instances.items() if units[name].state is State.LOADED]

    def instances(self, entry: ModelEntry, *, leaving: bool = False) -> list[int]:
        """The numbers of a model's instances that run or will; with `leaving` also of those that take no callers."""
        units = self._schedule.units
        named = [
            (one.entry.instance, units.get(name)) for name, one in self._subjects.items() if one.entry.id == entry.id
        ]
        return sorted({number for number, unit in named if unit and unit.present and (leaving or not unit.leaving)})

    def unit(self, entry: ModelEntry, task: Task = Task.GENERATE) -> Unit | None:
        """What the schedule knows of an instance; None if it was never asked for."""
        return self._schedule.units.get(unit_name(entry, task))

    def instance(self, entry: ModelEntry, task: Task = Task.GENERATE) -> Instance | None:
        """The running process of a model, if there is one."""
        return self._instances.get(unit_name(entry, task))

    def progress(self, name: str) -> Progress | None:
        """How far a unit is from being ready, by its name; None if it is."""
        instance = self._instances.get(name)
        return progress(self._schedule.units[name], instance.child if instance else None, time.monotonic())

    def output(self, entry: ModelEntry) -> Output:
        """What the processes of a model print, now, before and later."""
        return self._outputs.setdefault(entry.id, Output())

    def ports(self) -> set[int]:
        """Where children listen, ready or not."""
        return {instance.child.port for instance in self._instances.values() if instance.child and instance.child.port}

    def last_used(self, entry: ModelEntry, task: Task = Task.GENERATE) -> float | None:
        """When a request was last done with an instance, as `time.time()`; None if none ever was."""
        unit, subject = self.unit(entry, task), self._subjects.get(unit_name(entry, task))
        if unit is None or subject is None:
            return None
        return time.time() if unit.leases else subject.used_at

    def overdue(self) -> float:
        """Seconds by which the schedule is late; more than a moment means that it hangs."""
        return self._schedule.overdue(time.monotonic())

    async def close(self) -> None:
        """Refuse all callers, stop every child, and wait until all are gone."""
        self._carry_out(self._schedule.shut_down(time.monotonic(), force=True))
        await self._empty.wait()
        if self._timer:
            self._timer.cancel()

    def hurry(self) -> None:
        """Skip the grace of children that are stopping."""
        for instance in self._instances.values():
            if instance.runner:
                instance.runner.cancel()

    # ── leases ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _admit(self, lease: Lease, entry: ModelEntry, task: Task, manner: Manner) -> Instance:
        try:
            return await self._ask(lease, entry, task, manner)
        except BaseException:
            self._leave(lease)
            raise

    def _ask(
        self,
        ticket: Ticket,
        entry: ModelEntry,
        task: Task,
        manner: Manner,
        overrides: ModelSettings | None = None,
    ) -> asyncio.Future[Instance]:
        """Ask the schedule for a unit; the future is its answer. Raises ModelNotLoaded for a broken file."""
        if entry.error:
            raise ModelNotLoaded(f"The model '{entry.id}' cannot be used: {entry.error}.", param="model")
        name, now = unit_name(entry, task), time.monotonic()
        rests = not self._awake(name)
        subject = self._subject(name, entry, task)
        if overrides is not None:
            self._override(name, subject, overrides)
        ttl = manner.first_ttl if manner.ttl is None and rests else manner.ttl
        if ttl is not None:
            subject.ttl = ttl
        caller: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self._callers[ticket] = caller
        self._carry_out(self._schedule.ask(ticket, name, self._terms(subject, manner.settings), now, manner.keep))
        return caller

    def _leave(self, ticket: Ticket) -> None:
        self._callers.pop(ticket, None)
        self._carry_out(self._schedule.leave(ticket, time.monotonic()))

    def _note_use(self, entry: ModelEntry, task: Task) -> None:
        self._subjects[unit_name(entry, task)].used_at = time.time()

    def _subject(self, name: str, entry: ModelEntry, task: Task) -> Subject:
        """What a unit is from now on; one at rest has no overrides."""
        subject = self._subjects.setdefault(name, Subject(entry, task))
        subject.entry = entry
        if not self._awake(name):
            subject.overrides = subject.ttl = None
        return subject

    def _units_of(self, entry: ModelEntry, alone: bool) -> list[tuple[str, Subject]]:
        all_of_it = entry.instance == 1 and not alone
        units = [(name, one) for name, one in self._subjects.items() if one.entry.id == entry.id]
        return [(name, one) for name, one in units if all_of_it or one.entry.instance == entry.instance]

    def _awake(self, name: str) -> bool:
        """Whether a unit has a process that is not leaving for good, or will have one."""
        unit, instance = self._schedule.units.get(name), self._instances.get(name)
        staying = instance is not None and instance.stop_reason not in ("idle", "evicted", "cancelled")
        return staying or bool(unit and unit.waiting)

    def _override(self, name: str, subject: Subject, overrides: ModelSettings) -> None:
        """Put settings over the owner's; a process that was started otherwise, or failed, makes way."""
        subject.overrides, subject.ttl = overrides, None
        instance = self._instances.get(name)
        if instance is None or of_process(instance.settings) != of_process(self._settings_of(subject)):
            self._carry_out(self._schedule.renew(name, time.monotonic()))

    def _settings_of(self, subject: Subject) -> ModelSettings:
        settings = self._settings.for_model(subject.entry.id)
        return settings.merged(subject.overrides) if subject.overrides else settings

    def _free_memory(self) -> int | None:
        return memory.available() if self._rules.memory_check else None

    def _terms(self, subject: Subject, wanted: ModelSettings | None = None) -> Terms:
        """What a unit is owed, and how a caller wants it to run."""
        entry, settings = subject.entry, self._settings_of(subject)
        settings = settings.merged(wanted) if wanted else settings
        named = wanted.model_fields_set if wanted else frozenset()
        wish = {name: value for name, value in runs(entry, settings).items() if name in named}
        ttl = next(
            (one for one in (subject.ttl, settings.ttl_seconds, self._rules.ttl_seconds) if one is not None), None
        )
        if entry.format == "CTranslate2":
            needed = whisper.memory_needed(entry, self._settings.audio.for_model(entry.id))
        else:
            needed = entry.memory_needed(context_size(entry, settings))
        return Terms(None if ttl == math.inf else ttl, bool(settings.pinned), needed, wish)

    # ── effects ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Grant(ticket, unit):
                    self._answer(ticket, self._instances[unit])
                case Refuse(ticket, unit, error):
                    if isinstance(error, NotReady):
                        explain(error, self.progress(unit))
                    self._answer(ticket, error)
                case Spawn(unit, wish):
                    self._spawn(unit, wish)
                case Stop(unit, reason):
                    self._end(unit, reason)
        self._set_timer()

    def _answer(self, ticket: object, answer: Instance | LlamaRunnerError) -> None:
        caller = self._callers.get(ticket)
        if caller is None or caller.done():
            return
        if isinstance(answer, Instance):
            caller.set_result(answer)
        else:
            caller.set_exception(answer)

    def _spawn(self, name: str, wish: Mapping[str, object]) -> None:
        subject = self._subjects[name]
        if wish:
            subject.overrides = (subject.overrides or ModelSettings()).merged(ModelSettings.model_validate(wish))
        instance = Instance(subject.entry, subject.task, self._settings_of(subject))
        self._instances[name] = instance
        self._empty.clear()
        self._bus.publish(ModelLoading(instance.entry.id))
        instance.runner = self._group.create_task(self._live(name, instance), name=f"child {name}")
        instance.runner.add_done_callback(partial(self._buried, name, instance))

    def _end(self, name: str, reason: str) -> None:
        instance = self._instances[name]
        instance.stop_reason = reason
        assert instance.runner
        instance.runner.cancel()

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        now = time.monotonic()
        due = self._schedule.next_tick(now)
        loop = asyncio.get_running_loop()
        self._timer = None if due is None else loop.call_later(max(0.0, due - now), self._tick)

    def _tick(self) -> None:
        self._carry_out(self._schedule.tick(time.monotonic()))

    # ── one child ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _live(self, name: str, instance: Instance) -> Death:
        """The life of one child; cancelled to stop it."""
        entry = instance.entry
        try:
            launch = await asyncio.to_thread(self._describe, entry, instance.task, instance.settings)
            async with await Child.spawn(launch, self._rules.stop_grace_seconds, self.output(entry)) as child:
                instance.child = child
                limits = (self._rules.load_stall_seconds, self._rules.load_timeout_seconds)
                instance.endpoint = await child.ready(self._probe, *limits)
                instance.ready_at = time.monotonic()
                took = instance.ready_at - child.spawned_at
                log.info("%s is ready on port %d after %.2f s (%s)", name, instance.endpoint.port, took, launch.runtime)
                self._bus.publish(ModelStarted(entry.id, instance.endpoint.port, took))
                self._carry_out(self._schedule.started(name, time.monotonic(), runs(entry, instance.settings)))
                return await child.wait()
        except LoadFailed as failure:
            return failure.death
        except LlamaRunnerError as error:
            return Death(error.message.rstrip("."))
        except Exception:  # a mistake of ours must cost one model, not the house
            log.exception("%s: unexpected error", name)
            return Death("the server met an unexpected error")

    def _buried(self, name: str, instance: Instance, runner: asyncio.Task[Death]) -> None:
        """The child is reaped: tell the schedule, and whoever waits for the news."""
        entry = instance.entry
        instance.death = None if runner.cancelled() or instance.stop_reason else runner.result()
        if instance.death is None:
            log.info("%s is unloaded (%s)", name, instance.stop_reason or "asked")
            self._bus.publish(ModelStopped(entry.id, instance.stop_reason or "asked"))
        else:
            log.error("%s failed: %s; GET /v1/models/%s/logs has its words", name, instance.death.cause, entry.id)
            printed = instance.child.log.tail(20) if instance.child else []  # parts of prompts may be among it
            log.debug("%s said last:\n%s", name, "\n".join(f"    {line}" for line in printed))
            self._bus.publish(ModelFailed(entry.id, instance.death.cause))
        instance.gone.set()
        del self._instances[name]
        if not self._instances:
            self._empty.set()
        self._carry_out(self._schedule.ended(name, instance.death, time.monotonic()))

    def _suspect(self, instance: Instance) -> None:
        if not instance.suspected and not instance.gone.is_set():
            instance.suspected = True
            self._group.create_task(self._examine(instance), name="examine")

    async def _examine(self, instance: Instance) -> None:
        """Probe a silent child; kill it when no probe is answered."""
        assert instance.child is not None
        assert instance.endpoint is not None
        for _ in range(SUSPECT_PROBES):
            if instance.gone.is_set() or await self._probe(instance.endpoint, SUSPECT_PATH):
                instance.suspected = False
                return
        instance.child.kill(Death("its process stopped answering"))

    def _wind_down(self, instance: Instance, given_up: bool) -> None:
        """A lease has ended: see that the work of those who left in the middle ends too."""
        assert instance.child
        instance.given_up |= given_up
        if instance.given_up and instance.child.launch.idle and not instance.gone.is_set():
            self._group.create_task(self._await_idle(instance, instance.child.launch.idle), name="wind down")

    async def _await_idle(self, instance: Instance, path: str) -> None:
        """End a child that is not idle soon after its last lease."""
        assert instance.endpoint
        name = unit_name(instance.entry, instance.task)
        unit = self._schedule.units[name]
        since = unit.last_used
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(instance.gone.wait(), GIVEN_UP_SECONDS)
        if instance.gone.is_set() or not unit.idle:
            return
        idle = await self._probe(instance.endpoint, path)
        if instance.gone.is_set() or unit.last_used > since:
            return  # the end of the lease that came meanwhile sees to it
        instance.given_up = not idle
        if not idle:
            self._carry_out(self._schedule.give_up(name, time.monotonic()))
