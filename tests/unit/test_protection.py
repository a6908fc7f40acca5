"""Which ways to the servers a hospital would want otherwise."""

from __future__ import annotations

import pytest

from smearwatch.protection import Way, is_local, way_to_redis, weaknesses

AWAY = "db.hospital.example"


@pytest.mark.parametrize(
    "host", ["", "/run/postgresql", "localhost", "127.0.0.1", "127.9.9.9", "::1"]
)
def test_what_stays_on_the_machine_needs_nothing(host: str) -> None:
    """A socket or the loopback, open as it may be, is no weakness."""
    assert is_local(host)
    assert not list(weaknesses(Way(host, False, False, False), "a", "b"))


@pytest.mark.parametrize("host", [AWAY, "10.0.0.7", "postgres", "2001:db8::1"])
@pytest.mark.parametrize(
    ("encrypted", "verified", "password", "said"),
    [
        (False, False, False, ["not encrypted: mend a", "no password"]),
        (False, True, True, ["not encrypted"]),
        (True, False, True, ["anybody could answer in the server's place: mend b"]),
        (True, True, False, ["no password"]),
        (True, True, True, []),
    ],
)
def test_what_leaves_it_is_encrypted_verified_and_closed(
    host: str, encrypted: bool, verified: bool, password: bool, said: list[str]
) -> None:
    """Each thing missing is named with its remedy, and nothing else."""
    found = list(weaknesses(Way(host, encrypted, verified, password), "mend a", "mend b"))
    assert len(found) == len(said)
    assert all(part in one for part, one in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("url", "way"),
    [
        ("redis+socket:///run/valkey.sock", Way("", False, False, False)),
        (f"redis://{AWAY}:6379/0", Way(AWAY, False, False, False)),
        (f"redis://u:p@{AWAY}/0", Way(AWAY, False, False, True)),
        (f"rediss://u:p@{AWAY}/0?ssl_cert_reqs=none", Way(AWAY, True, False, True)),
        (f"rediss://u:p@{AWAY}/0?ssl_cert_reqs=required", Way(AWAY, True, True, True)),
        (f"rediss://:p@{AWAY}/0?ssl_cert_reqs=CERT_REQUIRED", Way(AWAY, True, True, True)),
    ],
)
def test_brokers_url(url: str, way: Way) -> None:
    """Redis speaks TLS or does not; the URL says which, and whom it trusts."""
    assert way_to_redis(url) == way
