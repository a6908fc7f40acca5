"""How well the ways to the two servers are protected, and what to do where they are not. Pure.

A socket or the loopback leaves the machine nowhere. Everything else wants encryption, a server
that proves who it is, and a password.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit


class Way(NamedTuple):
    """A connection to a server, as it is."""

    host: str  # empty or a path for a socket
    encrypted: bool
    verified: bool  # the server's certificate and name
    password: bool  # it was asked for one


def weaknesses(way: Way, encrypt: str, verify: str) -> Iterator[str]:
    """What is wrong with a way; `encrypt` and `verify` say how to mend it."""
    if is_local(way.host):
        return
    if not way.encrypted:
        yield f"not encrypted: {encrypt}"
    elif not way.verified:
        yield f"encrypted, but anybody could answer in the server's place: {verify}"
    if not way.password:
        yield "the server asks for no password: give it one"


def is_local(host: str) -> bool:
    """True where nothing leaves this machine."""
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def way_to_redis(url: str) -> Way:
    """What a broker's URL says; Redis speaks TLS or does not, there is nothing between."""
    parts = urlsplit(url)
    required = parse_qs(parts.query).get("ssl_cert_reqs", [""])[0].lower().removeprefix("cert_")
    return Way(
        host="" if parts.scheme == "redis+socket" else parts.hostname or "",
        encrypted=parts.scheme == "rediss",
        verified=required == "required",
        password=parts.password is not None,
    )
