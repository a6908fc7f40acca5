"""Channels that die, hang or refuse: the alert arrives all the same, and nobody else waits."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from db import alerts
from db.session import Connection, Engine, transaction
from smearwatch import rulebook
from smearwatch.on_call import OnCall, Recipient, Smtp
from smearwatch.reassessment import reassess
from smearwatch.settings import Settings, Source
from tests.judged import judged_slide
from tests.processes import Installation, wait_until
from tests.receiving import Server
from worker import channels, delivery, message
from worker.delivery import Deliverer

LEUKAEMIA = {"neutrophil": 40, "lymphocyte": 20, "myeloblast": 40}
APL = {"neutrophil": 40, "lymphocyte": 20, "promyelocyte": 40}
AT_ONCE = 0.00001  # minutes


@pytest.fixture
def servers_of_people(tmp_path: Path) -> Iterator[Callable[[str], Server]]:
    """Make a mail server or webhook receiver; all end with the test."""
    made: list[Server] = []

    def make(kind: str) -> Server:
        made.append(Server(kind, tmp_path / f"{kind}{len(made)}"))
        return made[-1]

    yield make
    for server in made:
        server.kill()


def on_call(server: Server, secret: Path | None = None, **settings: Any) -> OnCall:
    """The duty haematologist, reached over this server."""
    if server.kind == "http":
        url = f"http://127.0.0.1:{server.port}/"
        return OnCall(on_call=[Recipient(name="Duty", webhook=url, secret_file=secret)], **settings)
    smtp = Smtp(host="127.0.0.1", port=server.port, starttls=False, sender="night@example.org")
    return OnCall(on_call=[Recipient(name="Duty", email="d@example.org")], smtp=smtp, **settings)


def events(database: Engine) -> list[tuple[str, str]]:
    with transaction(database) as connection:
        rows = connection.execute(text("SELECT kind, actor FROM alert_events ORDER BY id"))
        return [(row.kind, row.actor) for row in rows]


def key_of(server: Server, raw: bytes) -> str:
    """What a receiver tells repetitions by."""
    if server.kind == "http":
        return str(json.loads(raw)["headers"]["webhook-id"])
    return str(message_from_bytes(raw)["Message-ID"])


@pytest.mark.parametrize("kind", ["smtp", "http"])
def test_server_killed_with_the_message_in_its_hands(
    kind: str,
    servers_of_people: Callable[[str], Server],
    secret: Path,
    database: Engine,
    share: Path,
) -> None:
    """kill -9 before it answered: a failed attempt, and delivered once it is back."""
    server = servers_of_people(kind)
    server.hold()
    judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    people = on_call(server, secret, retry_seconds=0.001)
    deliverer = Deliverer(database, people, {"di60": Source(path=share)})
    attempt = threading.Thread(target=deliverer.deliver_due)
    attempt.start()
    wait_until(lambda: server.holds_one, 30, "the message is in its hands")
    server.kill()
    attempt.join()
    assert deliverer.deliver_due() == 0  # nobody listens
    server.go_on()
    server.start()
    assert deliverer.deliver_due() == 1
    assert deliverer.deliver_due() == 0
    assert events(database) == [
        ("raised", "worker"),
        ("delivery_failed", "Duty"),
        ("delivery_failed", "Duty"),
        ("delivered", "Duty"),
    ]
    (arrived,) = server.messages
    assert ".1" in key_of(server, arrived)  # still the first notice, whichever attempt it took


def test_hanging_mail_server_holds_up_nobody(
    servers_of_people: Callable[[str], Server],
    database: Engine,
    settings: Settings,
    share: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it keeps one message, slides are judged and the pager hears of old and new alerts."""
    monkeypatch.setattr(channels, "TIMEOUT_SECONDS", 300.0)
    server = servers_of_people("smtp")
    server.hold()
    pager = Recipient(name="Pager", command=["sh", "-c", "cat > /dev/null"])
    duty = on_call(server)
    people = duty.model_copy(
        update={"on_call": [*duty.on_call, pager], "escalate_minutes": AT_ONCE}
    )
    stop = threading.Event()
    deliverer = Deliverer(database, people, {"di60": Source(path=share)})
    running = threading.Thread(target=deliverer.run, args=(settings.database(), stop))
    running.start()
    try:
        judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
        wait_until(lambda: server.holds_one, 30, "the mail server hangs")
        judged_slide(database, share, "PHANTOM-22", **LEUKAEMIA)
        wait_until(lambda: events(database).count(("delivered", "Pager")) == 2, 60, "both told")
        assert ("delivered", "Duty") not in events(database)
    finally:
        server.go_on()
        stop.set()
        running.join()


def test_share_that_hangs_holds_up_no_alert(
    servers_of_people: Callable[[str], Server],
    database: Engine,
    share: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cells cannot be had: the message goes without them, and says so."""
    back = threading.Event()
    monkeypatch.setattr(message, "draw_sheet", lambda *_: back.wait(60))
    monkeypatch.setattr(delivery, "SHEET_SECONDS", 0.1)
    server = servers_of_people("smtp")
    judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    deliverer = Deliverer(database, on_call(server), {"di60": Source(path=share)})
    try:
        assert deliverer.deliver_due() == 1
    finally:
        back.set()
    assert b"could not be read" in server.messages[0]


def test_name_on_the_share_adds_no_header(
    servers_of_people: Callable[[str], Server], database: Engine, share: Path
) -> None:
    """A folder called `A, newline, Bcc: ...` is one line of a subject and nothing else."""
    judged_slide(database, share, "PHANTOM\r\nBcc: thief@example.org\n\nAll is well", **LEUKAEMIA)
    server = servers_of_people("smtp")
    deliverer = Deliverer(database, on_call(server), {"di60": Source(path=share)})
    assert deliverer.deliver_due() == 1
    mail = message_from_bytes(server.messages[0], policy=policy.default)
    assert mail["Bcc"] is None
    assert mail["To"] == "d@example.org"
    assert "PHANTOM??Bcc: thief@example.org??All is well" in mail["Subject"]
    body = mail.get_body()
    assert body is not None
    assert body.get_content().startswith("Slide PHANTOM??Bcc: thief@example.org??All is well:")


def test_suspected_apl_goes_first_and_is_named(
    servers_of_people: Callable[[str], Server], database: Engine, share: Path
) -> None:
    """The later alert of the more urgent slide leads the list, and its subject says why."""
    judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    judged_slide(database, share, "PHANTOM-22", **APL)
    with transaction(database) as connection:
        _, waiting = alerts.unacknowledged(connection)
    assert [alert.message["apl_suspected"] for alert in waiting] == [True, False]
    server = servers_of_people("smtp")
    assert Deliverer(database, on_call(server), {}).deliver_due() == 2
    subjects = {message_from_bytes(raw)["Subject"] for raw in server.messages}
    assert subjects == {
        "[Smearwatch] URGENT, APL suspected: slide PHANTOM-22",
        "[Smearwatch] URGENT slide PHANTOM-1",
    }


def test_message_says_what_the_slide_is_judged_by_now(
    servers_of_people: Callable[[str], Server], database: Engine, share: Path
) -> None:
    """An open alert whose slide fell since goes on, and says that it fell."""
    judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    list(reassess(database, replace(rulebook.shipped(), urgent_suspicious=0.9)))
    server = servers_of_people("smtp")
    assert Deliverer(database, on_call(server), {}).deliver_due() == 1
    assert b"Judged again since, with other rules or more images: review" in server.messages[0]


def test_secrets_are_in_no_log_list_or_history(
    installation: Installation,
    servers_of_people: Callable[[str], Server],
    database: Engine,
    share: Path,
    tmp_path: Path,
) -> None:
    """A refused password and a webhook's secret: neither in logs, process list nor database."""
    password = tmp_path / "password"
    password.write_text("s3cr3t-pass")
    mail, hook = servers_of_people("smtp"), servers_of_people("http")
    (tmp_path / "alerts.toml").write_text(
        f'escalate_minutes = {AT_ONCE}\n[smtp]\nhost = "127.0.0.1"\nport = {mail.port}\n'
        f'starttls = false\nsender = "n@example.org"\nuser = "n"\npassword_file = "{password}"\n'
        '[[on_call]]\nname = "Duty"\nemail = "d@example.org"\n'
        f'[[on_call]]\nname = "Hook"\nwebhook = "http://127.0.0.1:{hook.port}/"\n'
        f'secret_file = "{password}"\n'
    )
    deliver = installation.start("deliver", SMEARWATCH_ALERTS=str(tmp_path / "alerts.toml"))
    judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    wanted = {("delivery_failed", "Duty"), ("delivered", "Hook")}
    wait_until(lambda: wanted <= set(events(database)), 60, "one refuses, the other takes it")
    with transaction(database) as connection:
        notes = connection.scalars(text("SELECT coalesce(note, '') FROM alert_events")).all()
    seen = [
        Path(f"/proc/{deliver.pid}/cmdline").read_text(),
        installation.log.read_text(),
        *notes,
        *(raw.decode() for raw in hook.messages),
    ]
    assert any("SMTPAuthenticationError" in note for note in notes)
    assert [one for one in seen if "s3cr3t" in one] == []


def test_alert_that_reached_nobody_for_too_long_is_unhealthy(
    installation: Installation, database: Engine, share: Path
) -> None:
    """`health` and `status` fail though the delivering process lives."""
    installation.environment["SMEARWATCH_ALERT_LIMIT_SECONDS"] = "300"
    judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    with transaction(database) as connection:
        connection.execute(
            text("INSERT INTO processes (name, host, pid) VALUES ('deliver', :host, 1)"),
            {"host": socket.gethostname()},
        )
    assert installation.run("health", "deliver").returncode == 0
    with transaction(database) as connection:
        connection.execute(text("UPDATE alerts SET raised_at = now() - interval '301 s'"))
    health = installation.run("health", "deliver")
    assert health.returncode == 1
    assert "reached nobody" in health.stderr
    status = installation.run("status")
    assert status.returncode == 3
    assert "reached nobody" in status.stdout + status.stderr


def test_redirect_is_no_delivery(secret: Path, database: Engine, share: Path) -> None:
    """A page to log in, after a 302, would answer 200 to anything: nobody has read the alert."""
    seen = []

    class Redirecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.command)
            self.send_response(302)
            self.send_header("Location", "/login")
            self.end_headers()

        def do_GET(self) -> None:
            seen.append(self.command)
            self.send_response(200)
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Redirecting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    url = f"http://127.0.0.1:{server.server_port}/"
    people = OnCall(on_call=[Recipient(name="Duty", webhook=url, secret_file=secret)])
    try:
        assert Deliverer(database, people, {"di60": Source(path=share)}).deliver_due() == 0
    finally:
        server.shutdown()
    assert seen == ["POST"]
    assert events(database) == [("raised", "worker"), ("delivery_failed", "Duty")]


def test_delivery_that_ends_during_the_look_is_not_repeated(
    servers_of_people: Callable[[str], Server],
    database: Engine,
    share: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The look's history is older than the end of the attempt: it must not count as untold."""
    server = servers_of_people("smtp")
    judged_slide(database, share, "PHANTOM-1", **LEUKAEMIA)
    deliverer = Deliverer(database, on_call(server), {"di60": Source(path=share)})
    look = alerts.unacknowledged

    def look_while_one_ends(connection: Connection) -> Any:
        seen = look(connection)
        deliverer._on_their_way.clear()  # noqa: SLF001
        return seen

    monkeypatch.setattr(alerts, "unacknowledged", look_while_one_ends)
    (alert,) = events(database)
    assert alert == ("raised", "worker")
    deliverer._on_their_way.add((alert_ids(database)[0], "Duty"))  # noqa: SLF001
    assert deliverer.deliver_due() == 0
    assert deliverer.deliver_due() == 1


def alert_ids(database: Engine) -> list[int]:
    with transaction(database) as connection:
        return list(connection.scalars(text("SELECT id FROM alerts ORDER BY id")))


def test_turn_of_a_deliverer_whose_host_died_passes_on(
    database: Engine, settings: Settings
) -> None:
    """The server, too, asks whether its peer lives: the standby need not wait two hours."""
    query = "SELECT name, source FROM pg_settings WHERE name LIKE 'tcp\\_%' AND source = 'client'"
    listening = alerts.listen(settings.database(), 0.1)
    assert next(listening)
    with transaction(database) as connection:
        assert {row.name for row in connection.execute(text(query))} == {
            "tcp_keepalives_count",
            "tcp_keepalives_idle",
            "tcp_keepalives_interval",
            "tcp_user_timeout",
        }
    listening.close()
