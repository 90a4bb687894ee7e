"""One build of a runtime: its command, the flags it knows, and what it may see of our environment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from llamarunner.errors import ModelFailed

# Names under which builds of llama-server know the same flag, with the same values.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("--no-ui", "--no-webui"),
    ("--embeddings", "--embedding"),
    ("--reranking", "--rerank"),
    ("--ctx-checkpoints", "--swa-checkpoints"),
    ("--n-gpu-layers", "--gpu-layers"),
    ("--model-draft", "--spec-draft-model"),
    ("--n-gpu-layers-draft", "--gpu-layers-draft", "--spec-draft-ngl"),
    ("--spec-draft-n-max", "--draft-max", "--draft-n", "--draft"),
    ("--spec-draft-n-min", "--draft-min", "--draft-n-min"),
    ("--spec-draft-p-min", "--draft-p-min"),
    ("--spec-draft-type-k", "--cache-type-k-draft"),
    ("--spec-draft-type-v", "--cache-type-v-draft"),
    ("--spec-draft-threads", "--threads-draft"),
)
_GROUP = {flag: group for group in SYNONYMS for flag in group}

# What a child sees of our environment: what programs need to run at all, and what chooses and tunes devices. Neither
# proxies, nor tokens, nor llama.cpp's own LLAMA_ARG_* variables, which would override the settings unseen.
INHERITED = re.compile(
    "PATH|HOME|USER|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|TEMP|TMP|XDG_RUNTIME_DIR|XDG_CACHE_HOME|(LD|DYLD)_LIBRARY_PATH"
    "|SYSTEMROOT|SYSTEMDRIVE|WINDIR|PATHEXT|COMSPEC|USERPROFILE|(LOCAL)?APPDATA|PROGRAMDATA|NUMBER_OF_PROCESSORS"
    "|(CUDA|NVIDIA|GGML|HIP|ROCR|HSA|VK|SYCL|ONEAPI|ZE|OMP)_.*",
    re.IGNORECASE,  # as names are on Windows
)

LISTED = re.compile(r" {0,3}-")  # deeper, it is a description that speaks of another flag
DESCRIPTION = re.compile(r"\s{2,}(?![\s-])")
FLAG = re.compile(r"(?:^|(?<=[\s,]))--?[A-Za-z][\w-]*")


@dataclass(frozen=True, slots=True)
class Build:
    """A runtime of this machine: `command` starts it, `flags` are those that its `--help` lists."""

    kind: str
    command: tuple[str, ...]
    version: str
    flags: frozenset[str]
    env: Mapping[str, str] = field(default_factory=dict)

    def spelling(self, flag: str) -> str | None:
        """Return the name under which this build knows the flag, None if it does not."""
        return next((name for name in _GROUP.get(flag, (flag,)) if name in self.flags), None)


@dataclass(frozen=True, slots=True)
class Option:
    """A flag we would like to pass; `wanted` is the setting that asks for it, None when it is only our own default."""

    flag: str
    values: tuple[str, ...] = ()
    wanted: str | None = None


def arguments(options: Iterable[Option], build: Build) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the arguments this build understands, and a warning for each default of ours that it does not.

    Raises ModelFailed for a flag that a setting asks for and the build lacks: better before the start than as the
    last words of a child.
    """
    argv: list[str] = []
    warnings: list[str] = []
    for option in options:
        if name := build.spelling(option.flag):
            argv += name, *option.values
        elif option.wanted:
            raise refusal(option.wanted, build)
        else:
            warnings.append(f"{build.kind} {build.version} does not know {option.flag}; left out")
    return tuple(argv), tuple(warnings)


def own_flags(extra_args: Iterable[str], build: Build) -> Iterator[str]:
    """Return the person's own arguments, under the names that this build knows; raises ModelFailed if it lacks one."""
    for argument in extra_args:
        if not re.match(r"--?[A-Za-z]", argument):
            yield argument
        elif name := build.spelling(argument):
            yield name
        else:
            raise refusal(f"extra_args: {argument}", build)


def refusal(setting: str, build: Build) -> ModelFailed:
    return ModelFailed(
        f"The setting {setting} needs an option that this {build.kind} (version {build.version}) does not have. "
        "Remove the setting or choose another runtime.",
        retry_after=None,
    )


def flags_of(help_text: str) -> frozenset[str]:
    """Return the flags that a `--help` lists at the beginning of its lines, without those it calls removed."""
    listed = (line.strip() for line in help_text.splitlines() if LISTED.match(line) and "has been removed" not in line)
    return frozenset(flag for line in listed for flag in FLAG.findall(DESCRIPTION.split(line)[0]))


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what of our environment a child may see."""
    return {name: value for name, value in environ.items() if INHERITED.fullmatch(name)}
