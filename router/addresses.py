"""Where sockets are: ``host:port``, ``[v6]:port`` or ``unix:/path``, and the URLs of replicas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

LISTEN_FORMS = "host:port, [v6]:port or unix:/path/to/socket"
REPLICA_FORMS = "http://host:port or http+unix:///path/to/socket"

MAX_UNIX_PATH_BYTES = 107
"""Longest path of a Unix socket on Linux (sun_path, less its final NUL)."""

_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")


class AddressError(ValueError):
    """A text that is no address; ``str()`` is one line that also says what is allowed.

    Args:
        text: What was given.
        why: What is wrong with it, or what is allowed.
    """

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f"{text!r}: {why}")
        self.text = text
        self.why = why


@dataclass(slots=True, frozen=True)
class Address:
    """A TCP address, or the path of a Unix socket. ``str()`` gives the form that was parsed."""

    host: str = ""
    """Name or number, IPv6 without brackets; empty for a Unix socket."""

    port: int = 0
    """0 where the system shall choose."""

    path: str | None = None
    """Path of the Unix socket; None for TCP."""

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name: it may resolve to anything


def parse_address(text: str) -> Address:
    """Read an address to listen on; port 0 means that the system chooses.

    Raises:
        AddressError: It has none of the forms ``host:port``, ``[v6]:port``, ``unix:/path``.
    """
    if text.startswith("unix:"):
        return _unix(text, text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon or not host or port.endswith("]"):
        hint = "; 0.0.0.0 stands for every interface" if colon else ""
        raise AddressError(text, f"expected {LISTEN_FORMS}{hint}")
    return Address(_host(text, host), _port(text, port, lowest=0))


def parse_replica_url(url: str) -> Address:
    """Read the base URL of a replica; the port of ``http://host`` is 80.

    Raises:
        AddressError: It is no ``http://host:port`` and no ``http+unix:///path``.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:  # an opened bracket that is never closed
        raise AddressError(url, f"expected {REPLICA_FORMS}") from error
    if _CONTROL.search(url):
        raise AddressError(url, "a URL holds no white space and no control characters")
    if parts.scheme == "https":
        why = "https:// replicas are not supported; put TLS in a sidecar and give its http:// URL"
        raise AddressError(url, why)
    if parts.scheme not in {"http", "http+unix"} or not url.lower().startswith(
        f"{parts.scheme}://"
    ):
        raise AddressError(url, f"expected {REPLICA_FORMS}")
    if "?" in url or "#" in url:
        raise AddressError(url, "the URL of a replica has no query and no fragment")
    if parts.scheme == "http+unix":
        if parts.netloc:
            raise AddressError(url, "a socket path is absolute: http+unix:///path/to/socket")
        return _unix(url, parts.path)
    if "@" in parts.netloc:
        raise AddressError(url, "the URL of a replica has no user and no password")
    if parts.path not in {"", "/"}:
        why = f"the URL of a replica has no path: drop {parts.path!r}, paths go on as clients sent"
        raise AddressError(url, why)
    return _authority(url, parts.netloc)


def _authority(url: str, netloc: str) -> Address:
    host, colon, port = netloc.rpartition(":")
    if not colon or netloc.endswith("]"):
        return Address(_host(url, netloc), 80)
    return Address(_host(url, host), _port(url, port, lowest=1))


def _unix(text: str, path: str) -> Address:
    if not path.startswith("/") or path.endswith("/"):
        raise AddressError(text, "the path of a Unix socket is absolute and names a file")
    if "\0" in path:
        raise AddressError(text, "a path holds no NUL")
    if len(path.encode()) > MAX_UNIX_PATH_BYTES:
        why = f"the path of a Unix socket has at most {MAX_UNIX_PATH_BYTES} bytes"
        raise AddressError(text, why)
    return Address(path=path)


def _host(text: str, host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            IPv6Address(host[1:-1])
        except ValueError as error:
            raise AddressError(text, f"{host} is no IPv6 address") from error
        return host[1:-1]
    if ":" in host:
        raise AddressError(text, "an IPv6 address stands in brackets: [::1]:8080")
    if not _HOSTNAME.fullmatch(host):
        raise AddressError(text, f"{host!r} is no host name" if host else "the host is missing")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ip_address(host)
        except ValueError as error:
            raise AddressError(text, f"{host} is no IPv4 address") from error
    return host


def _port(text: str, port: str, *, lowest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", port) or not lowest <= int(port) <= 65535:
        raise AddressError(text, f"the port {port!r} is no number from {lowest} to 65535")
    return int(port)
