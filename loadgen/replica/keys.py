"""Where the handlers find what they share."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from loadgen.replica.flavours.base import Flavour
from loadgen.replica.simulated import SimulatedReplica

REPLICA: Final = web.AppKey("REPLICA", SimulatedReplica)
FLAVOUR: Final = web.AppKey("FLAVOUR", Flavour)
