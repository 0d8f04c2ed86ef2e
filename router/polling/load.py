"""Reading one replica's load, wherever its engine tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from router.engines.base import UnrecognisedPageError
from router.engines.catalogue import GENERIC
from router.polling.connection import LookFailedError
from router.polling.detect import detect

if TYPE_CHECKING:
    from router.core.sample import Sample
    from router.engines.base import Dialect
    from router.polling.client import ReplicaClient

ABSENT_PAUSE_S: Final = 2.0
"""Time to the next look at a replica that tells its load nowhere."""

LONGEST_PAUSE_S: Final = 10.0
"""That time doubles up to this one: such a look asks in many places, and fills a server's log."""

MISSES_ALLOWED: Final = 1
"""Failed looks in a row over which a replica that was asleep is still taken for asleep."""


class NoLoadError(LookFailedError):
    """The replica answers, but tells its load in none of the places that its engine has."""


class Load:
    """The load of one replica, and the dialect in which it is told.

    Args:
        client: Whom to ask.
        dialect: Its engine; None: to be found out.
    """

    def __init__(self, client: ReplicaClient, dialect: Dialect | None) -> None:
        self._client = client
        self._named = dialect is not None
        self._detected = False
        self._best_path = 0
        self._misses = 0
        self.dialect = dialect or GENERIC
        """The engine's; ``generic`` as long as nothing better is known."""
        self.pause_s = 0.0
        """The next look should wait at least this long."""
        self.unfit: str | None = None
        """Why, by its own account, it cannot serve."""

    @property
    def known(self) -> bool:
        """Whether the engine was named or found out."""
        return self._named or self._detected

    def forget(self) -> None:
        """The replica was gone and is back: it may be another engine, or another version."""
        self._detected = False
        self._best_path = 0
        self.unfit = None
        self.pause_s = 0.0

    async def look(self) -> Sample | None:
        """Read its load; None when its engine tells none.

        Raises:
            LookFailedError: It could not be read, or was garbage.
        """
        try:
            sample = await self._look()
        except NoLoadError:
            self._missed()
            self._detected = False
            # The first time it may be that another engine took its place: look again at once.
            if self._misses > 1:
                self._pause_longer()
            raise
        except LookFailedError:
            self._missed()
            raise
        self._misses = 0
        if self.dialect.metrics_paths:
            self.pause_s = 0.0
        else:
            self._pause_longer()
        return sample

    async def _look(self) -> Sample | None:
        if not self.known:
            found = await detect(self._client)
            self.dialect = found.dialect
            # Nothing else can be found out of a generic server: it is asked again each time.
            self._detected = found.dialect is not GENERIC
            self._best_path = 0
            if found.path in found.dialect.metrics_paths:
                self._best_path = found.dialect.metrics_paths.index(found.path)
                return self._read(found.path, found.page)
        if not self.dialect.metrics_paths:
            return None
        return await self._ask()

    async def _ask(self) -> Sample:
        """Ask the place that answered last, then the others."""
        paths = self.dialect.metrics_paths
        failures = []
        for step in range(len(paths)):
            index = (self._best_path + step) % len(paths)
            path = paths[index]
            answer = await self._client.get(path)
            if answer.ok:
                try:
                    sample = self._read(path, answer.body)
                except NoLoadError as failure:
                    failures.append(str(failure))
                    continue
                self._best_path = index
                return sample
            failures.append(f"{path} answers {answer.status}")
            if not answer.absent:
                raise LookFailedError(failures[-1])
        raise NoLoadError("; ".join(failures))

    def _read(self, path: str, page: bytes) -> Sample:
        try:
            sample = self.dialect.parse(page)
            self.unfit = self.dialect.unfit(page)
        except UnrecognisedPageError as error:
            msg = f"{path}: {error}"
            raise NoLoadError(msg) from error
        except ValueError as error:
            msg = f"{path}: {error}"
            raise LookFailedError(msg) from error
        return sample

    def _pause_longer(self) -> None:
        self.pause_s = min(max(ABSENT_PAUSE_S, 2 * self.pause_s), LONGEST_PAUSE_S)

    def _missed(self) -> None:
        self._misses += 1
        if self._misses > MISSES_ALLOWED:
            # A broken metrics page never keeps a replica out.
            self.unfit = None
