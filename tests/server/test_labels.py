"""Names that clients give to instances."""

from __future__ import annotations

import asyncio
from pathlib import Path

from llamarunner.catalog import ModelEntry
from llamarunner.config import ModelSettings
from llamarunner.fleet.launch import Task
from llamarunner.fleet.lease import Instance
from llamarunner.server.labels import Labels


def instance() -> Instance:
    return Instance(ModelEntry("chat", Path("/chat.gguf")), Task.GENERATE, ModelSettings())


def load() -> asyncio.Future[Instance]:
    return asyncio.get_running_loop().create_future()


async def test_a_name_is_taken_from_the_beginning_of_a_load() -> None:
    labels, loading, loaded = Labels(), load(), instance()
    assert not labels.is_taken("mine")
    labels.give("mine", loading)
    assert (labels.is_taken("mine"), labels.find("mine")) == (True, None)
    loading.set_result(loaded)
    assert labels.find("mine") is loaded
    assert (labels.label_of(loaded), labels.label_of(instance())) == ("mine", None)


async def test_a_name_goes_with_its_instance() -> None:
    labels, loading, loaded = Labels(), load(), instance()
    labels.give("mine", loading)
    loading.set_result(loaded)
    loaded.gone.set()
    assert (labels.is_taken("mine"), labels.find("mine"), labels.label_of(loaded)) == (False, None, None)


async def test_a_load_that_failed_takes_no_name_and_names_are_forgotten() -> None:
    labels, failed, left = Labels(), load(), load()
    labels.give("a", failed)
    labels.give("b", left)
    failed.set_exception(ValueError())
    left.cancel()
    assert not labels.is_taken("a")
    assert not labels.is_taken("b")
    labels.give("c", load())
    assert list(labels._loads) == ["c"]
