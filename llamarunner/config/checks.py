"""Mistakes that no schema can tell: characters that nothing can use, and settings that exclude each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from llamarunner.config.mistakes import Mistake, NodePath
from llamarunner.config.model import ModelSettings
from llamarunner.config.settings import Door, Settings

ANY_HOST = frozenset({"0.0.0.0", "::"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def unfit(value: Any, path: NodePath = ()) -> Iterator[Mistake]:
    """Yield texts with a NUL or half a surrogate pair, and numbers that are not finite."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from unfit(key, (*path, key))
            yield from unfit(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unfit(item, (*path, index))
    elif isinstance(value, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value):
        yield Mistake(path, "has a character that no setting may have: NUL, or half a surrogate pair")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Mistake(path, "is not a finite number")


def contradictions(settings: Settings) -> Iterator[Mistake]:
    """Yield settings that are right each for itself, and wrong together."""
    yield from _doors(settings)
    yield from _aliases(settings)
    yield from _runtime(settings)
    yield from _templates(settings.defaults, ("defaults",))
    for key, model in settings.models.items():
        yield from _templates(model, ("models", key))
    supervisor = settings.supervisor
    if len(set(supervisor.preload)) > supervisor.max_loaded_models:
        limit: NodePath = ("supervisor", "max_loaded_models")
        message = (
            f"names {len(set(supervisor.preload))} models, and max_loaded_models is {supervisor.max_loaded_models}"
        )
        yield Mistake(("supervisor", "preload"), message, (limit,))


def _doors(settings: Settings) -> Iterator[Mistake]:
    doors = dict(settings.proxies.doors())
    if not doors:
        yield Mistake(("proxies",), "opens no door; enable at least one")
    for first, second in itertools.combinations(doors, 2):
        if _collide(doors[first], doors[second]):
            message = f"is {doors[second].port}, which another door takes too; each door needs its own host and port"
            places: tuple[NodePath, ...] = (("proxies", first, "port"), ("proxies", first, "host"))
            yield Mistake(("proxies", second, "port"), message, (*places, ("proxies", second, "host")))


def _collide(one: Door, other: Door) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    hosts = {one.host.lower(), other.host.lower()}
    return len(hosts) == 1 or bool(hosts & ANY_HOST) or hosts <= LOOPBACK


def _aliases(settings: Settings) -> Iterator[Mistake]:
    """An alias may lead to another one, but not in a circle."""
    targets = {alias.casefold(): target.casefold() for alias, target in settings.catalog.aliases.items()}
    for alias in settings.catalog.aliases:
        seen, name = {alias.casefold()}, targets[alias.casefold()]
        while name in targets and name not in seen:
            seen.add(name)
            name = targets[name]
        if name == alias.casefold():
            yield Mistake(("catalog", "aliases", alias), "leads back to itself; an alias must end at a model")


def _runtime(settings: Settings) -> Iterator[Mistake]:
    runtime = settings.runtime
    if runtime.binary is not None and runtime.kind not in ("auto", "llama-server"):
        message = (
            f'names a llama-server, and runtime.kind is "{runtime.kind}"; take "auto" or "llama-server", or no binary'
        )
        yield Mistake(("runtime", "binary"), message, (("runtime", "kind"),))


def _templates(model: ModelSettings, path: NodePath) -> Iterator[Mistake]:
    if model.chat_template is not None and model.chat_template_file is not None:
        yield Mistake(
            (*path, "chat_template_file"), "excludes chat_template; give one of them", ((*path, "chat_template"),)
        )
