"""The routers that are compared, each started in front of the same replicas.

The peers are not dependencies of pointsman. sglang-router is installed into ``.venv-bench`` by
the bench itself, nginx is used when it is on the PATH; a peer that cannot be had is reported, not
silently left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.processes import answers, free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

SGLANG_ROUTER = "sglang-router==0.3.2"
WITHOUT_CONTINUATION = "pointsman (no continuation)"
VENV = Path(".venv-bench")
ESTIMATING = "pointsman (estimating)"
"""With the policy least_estimated_completion."""
SPLITTING = "pointsman (splitting)"
"""Every request by two of its replicas."""
CACHE_AWARE = "sglang-router (cache_aware)"
"""With its own default policy, which looks at prompts as well."""
INSTALL_DEADLINE_S = 300


@dataclass(slots=True, frozen=True)
class Endpoint:
    """Where a peer listens, and the root of its process tree; pid 0: no router in between."""

    port: int
    pid: int


@dataclass(slots=True, frozen=True)
class Peer:
    """One way to reach the replicas."""

    name: str
    start: Callable[[list[int], Path, frozenset[int] | None], AbstractContextManager[Endpoint]]
    """Given the replicas' ports, a folder for files and the cores to use, runs it for the time of
    a block."""


@contextmanager
def direct(replicas: list[int], folder: Path, cores: frozenset[int] | None) -> Iterator[Endpoint]:
    """No router: the first replica itself."""
    yield Endpoint(replicas[0], 0)


@contextmanager
def pointsman(
    replicas: list[int],
    folder: Path,
    cores: frozenset[int] | None,
    *,
    config: str = "{}",
    policy: str = "power_of_two",
) -> Iterator[Endpoint]:
    """This router, as users run it: polling, policy and metrics on."""
    port, log = free_port(), folder / "pointsman.log"
    path = folder / "pointsman.yaml"
    path.write_text(config)
    command = [str(Path(sys.executable).parent / "pointsman"), "serve", "--policy", policy]
    command += ["--config", str(path), "--port", str(port), "--admin-port", "0"]
    for replica in replicas:
        command += ["--replica", f"http://127.0.0.1:{replica}"]
    with running("pointsman", command, log, cores) as process:
        answers(port, "/ready", process, log)
        yield Endpoint(port, process.pid)


@contextmanager
def splitting(
    replicas: list[int], folder: Path, cores: frozenset[int] | None
) -> Iterator[Endpoint]:
    """The same, with half of the replicas for prompts and half for answers."""
    half = len(replicas) // 2
    roles = [*["prefill"] * half, *["decode"] * (len(replicas) - half)]
    entries = [
        {"url": f"http://127.0.0.1:{port}", "role": role}
        for port, role in zip(replicas, roles, strict=True)
    ]
    policy = {"name": "prefill_decode", "options": {"split": "always"}}
    config = {"replicas": entries, "split": {"kv_dialect": "nixl"}, "policy": policy}
    with pointsman([], folder, cores, config=json.dumps(config), policy="prefill_decode") as made:
        yield made


without_continuation = partial(pointsman, config='{"continuation": {"enabled": false}}')
"""The same, but for streams that are relayed as they come."""


@contextmanager
def sglang_router(
    replicas: list[int],
    folder: Path,
    cores: frozenset[int] | None,
    *,
    policy: str = "power_of_two",
) -> Iterator[Endpoint]:
    """sglang-router (Rust) with its policy of that name."""
    port, metrics_port, log = free_port(), free_port(), folder / "sglang-router.log"
    command = [str(VENV / "bin" / "python"), "-m", "sglang_router.launch_router"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--policy", policy]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(metrics_port)]
    command += ["--log-level", "warn", "--worker-startup-check-interval", "1"]
    command += ["--worker-urls", *(f"http://127.0.0.1:{replica}" for replica in replicas)]
    with running("sglang-router", command, log, cores) as process:
        answers(port, "/readiness", process, log)
        yield Endpoint(port, process.pid)


@contextmanager
def nginx(replicas: list[int], folder: Path, cores: frozenset[int] | None) -> Iterator[Endpoint]:
    """nginx with one worker, upstream keep-alive, and nothing buffered."""
    port, log = free_port(), folder / "nginx.log"
    config = folder / "nginx.conf"
    config.write_text(_nginx_config(port, replicas, folder))
    command = [str(shutil.which("nginx")), "-p", str(folder), "-c", str(config)]
    command += ["-e", str(folder / "nginx-start.log")]
    with running("nginx", command, log, cores) as process:
        answers(port, "/health", process, log)
        yield Endpoint(port, process.pid)


def _nginx_config(port: int, replicas: list[int], folder: Path) -> str:
    servers = " ".join(f"server 127.0.0.1:{replica};" for replica in replicas)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
daemon off; worker_processes 1; {user} pid {folder}/nginx.pid; error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
  access_log off; {temporary} client_body_buffer_size 64k; client_max_body_size 32m;
  keepalive_requests 100000000;
  upstream fleet {{
    least_conn; {servers} keepalive 512; keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://fleet; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_buffering off; proxy_request_buffering on;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


def install_sglang_router(say: Callable[[str], None]) -> str | None:
    """Install the peer into its own environment; returns why it cannot be had, or None."""
    python = VENV / "bin" / "python"
    probe = [str(python), "-c", "import sglang_router.router"]
    if python.exists() and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return None
    say(f"installing {SGLANG_ROUTER} into {VENV}")
    steps = [
        [sys.executable, "-m", "venv", str(VENV)],
        [str(python), "-m", "pip", "install", "--quiet", SGLANG_ROUTER],
        probe,
    ]
    for step in steps:
        try:
            done = subprocess.run(
                step, capture_output=True, check=False, timeout=INSTALL_DEADLINE_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"{SGLANG_ROUTER} cannot be had: {error}"
        if done.returncode != 0:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-2:]
            return f"{SGLANG_ROUTER} cannot be had: {' | '.join(last)}"
    return None


def available(say: Callable[[str], None]) -> tuple[list[Peer], list[str]]:
    """The peers that can be run here, and why the others cannot."""
    peers, missing = [Peer("direct", direct), Peer("pointsman", pointsman)], []
    peers.append(Peer(WITHOUT_CONTINUATION, without_continuation))
    estimating = partial(pointsman, policy="least_estimated_completion")
    peers.append(Peer(ESTIMATING, estimating))
    peers.append(Peer(SPLITTING, splitting))
    reason = install_sglang_router(say)
    if reason is None:
        peers.append(Peer("sglang-router", sglang_router))
        peers.append(Peer(CACHE_AWARE, partial(sglang_router, policy="cache_aware")))
    else:
        missing.append(reason)
    if shutil.which("nginx"):
        peers.append(Peer("nginx", nginx))
    else:
        missing.append("nginx is not on the PATH")
    return peers, missing
