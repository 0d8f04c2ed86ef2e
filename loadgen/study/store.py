"""What has been simulated already: a file for each simulation."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from loadgen.simulate.task import Finished  # noqa: TC001 - msgspec reads the annotations
from loadgen.study.cases import is_own

if TYPE_CHECKING:
    from loadgen.simulate.task import Task

SOURCES = ("policies", "router.core", "loadgen.engine", "loadgen.trace", "loadgen.simulate")
"""Packages on which results depend."""


class Kept(msgspec.Struct, kw_only=True):
    """One file."""

    inputs: str
    """Digest of what was asked for."""

    sources: str
    """Digest of the code that answered."""

    finished: Finished


@dataclass(slots=True, frozen=True, kw_only=True)
class Trust:
    """Which results of earlier runs, of equal inputs, are taken over."""

    own: bool = False
    """Those of the policy that is measured, though the code has changed since."""

    others: bool = True
    """The same for all other policies."""


class Store:
    """A folder of results.

    Args:
        folder: Made when it is not there.
        trust: What to take over.
        sources: Digest of the code at hand.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, folder: Path, trust: Trust, sources: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._trust = trust
        self._sources = sources
        self._reused: set[str] = set()
        self._inputs: dict[str, str] = {}

    @property
    def reused(self) -> int:
        """How many results were taken over."""
        return len(self._reused)

    def look_up(self, key: str, task: Task) -> Finished | None:
        """The result of an equal task, if there is one that may be taken over."""
        self._inputs[key] = inputs_of(task)
        try:
            kept = msgspec.json.decode(self._path(key).read_bytes(), type=Kept)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None  # a file of another version is as good as none
        trusted = self._trust.own if is_own(task.policy) else self._trust.others
        if kept.inputs != self._inputs[key] or not (trusted or kept.sources == self._sources):
            return None
        self._reused.add(key)
        return kept.finished

    def keep(self, key: str, finished: Finished) -> None:
        """Keep the result of a task that was looked up; one that was taken over is kept already.

        Raises:
            OSError: The file cannot be written.
        """
        if key in self._reused:
            return
        path = self._path(key)
        kept = Kept(inputs=self._inputs[key], sources=self._sources, finished=finished)
        half = path.with_suffix(".part")
        half.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))
        half.replace(path)

    def _path(self, key: str) -> Path:
        name = re.sub(r"[^\w.+=-]+", "_", key)
        return self._folder / f"{name}.json"


def inputs_of(task: Task) -> str:
    """A digest of all that decides on a result; where a search begins does not."""
    asked = task
    if task.search is not None:
        asked = replace(task, rate_scale=1.0, search=replace(task.search, step=2.0))
    digest = sha256(msgspec.json.encode(asked))
    path = Path(task.selection.spec)
    if path.is_file():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sources_digest() -> str:
    """A digest of the code on which results depend."""
    digest = sha256()
    for package in SOURCES:
        folder = files(package)
        for file in sorted(folder.iterdir(), key=lambda each: each.name):
            if file.name.endswith(".py"):
                digest.update(f"{package}/{file.name}\n".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()
