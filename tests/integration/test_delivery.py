"""An urgent verdict's way to a person, over a real mail server, a real receiver, a real program."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import json
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from PIL import Image
from sqlalchemy import text

from db import alerts, reading
from db.session import Engine, transaction
from smearwatch.on_call import OnCall, Recipient, Smtp
from smearwatch.settings import Settings, Source
from tests.judged import judged_slide
from tests.processes import Installation, kill, wait_until
from tests.receiving import free_port
from worker.delivery import Deliverer

LEUKAEMIA = {"neutrophil": 40, "lymphocyte": 20, "myeloblast": 40}
NOW = 0.00001  # minutes


class Mailbox:
    """What a mail server received."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
        """Take a mail, as aiosmtpd hands it over."""
        from email import message_from_bytes, policy

        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.fixture
def mail() -> Iterator[tuple[Mailbox, Controller]]:
    box = Mailbox()
    server = Controller(box, hostname="127.0.0.1", port=free_port())
    server.start()
    yield box, server
    server.stop(no_assert=True)


class Receiver(HTTPServer):
    """A webhook's other end; `answer` is its status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = 200
        self.requests: list[tuple[dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((headers, body))  # type: ignore[attr-defined]
        self.send_response(self.server.answer)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def urgent(database: Engine, share: Path) -> int:
    """A slide with 40% blasts, judged: one alert waits."""
    return judged_slide(database, share, "PHANTOM-7", **LEUKAEMIA)


@pytest.fixture
def deliverer(database: Engine, share: Path) -> Callable[..., Deliverer]:
    def make(*people: Recipient, **settings: Any) -> Deliverer:
        on_call = OnCall(on_call=list(people), **settings)
        return Deliverer(database, on_call, {"di60": Source(path=share)})

    return make


def by_mail(server: Controller, name: str = "Duty") -> tuple[Recipient, Smtp]:
    smtp = Smtp(host="127.0.0.1", port=server.port, starttls=False, sender="smearwatch@example.org")
    return Recipient(name=name, email="duty@example.org"), smtp


def events(database: Engine) -> list[tuple[str, str]]:
    with transaction(database) as connection:
        rows = connection.execute(text("SELECT kind, actor FROM alert_events ORDER BY id"))
        return [(row.kind, row.actor) for row in rows]


@pytest.mark.usefixtures("urgent")
def test_mail_says_what_and_shows_the_cells(
    mail: tuple[Mailbox, Controller], deliverer: Callable[..., Deliverer], database: Engine
) -> None:
    """Barcode, level, reasons, percentages with intervals, model, disclaimer, contact sheet."""
    box, server = mail
    duty, smtp = by_mail(server)
    assert deliverer(duty, smtp=smtp).deliver_due() == 1
    (message,) = box.mails
    assert "URGENT" in message["Subject"]
    assert "PHANTOM-7" in message["Subject"]
    words = message.get_body().get_content()
    for said in ("Suspected acute leukaemia", "Blasts: 40.0% (30.3 to 50.3; 40 of 100)", "0" * 12):
        assert said in words
    assert "not a diagnosis" in words
    (sheet,) = message.iter_attachments()
    assert Image.open(io.BytesIO(sheet.get_content())).size[0] > 900
    assert events(database) == [("raised", "worker"), ("delivered", "Duty")]


@pytest.mark.usefixtures("urgent")
def test_webhook_is_signed_and_carries_the_figures(
    receiver: Receiver, secret: Path, deliverer: Callable[..., Deliverer]
) -> None:
    """The receiver can check the signature and knows a repetition by its id."""
    url = f"http://127.0.0.1:{receiver.server_port}/alerts"
    pager = Recipient(name="Pager", webhook=url, secret_file=secret)
    receiver.answer = 503
    sender = deliverer(pager, retry_seconds=0.001)
    assert sender.deliver_due() == 0
    receiver.answer = 200
    assert sender.deliver_due() == 1
    (first, _), (headers, body) = receiver.requests
    assert first["webhook-id"] == headers["webhook-id"]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(b"correct horse battery staple", signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
    data = json.loads(body)
    assert data["barcode"] == "PHANTOM-7"
    assert data["differential"]["blasts"]["count"] == 40
    assert base64.b64decode(data["contact_sheet_png"]).startswith(b"\x89PNG")


@pytest.mark.usefixtures("urgent")
def test_dead_channel_hands_on_to_the_next(
    mail: tuple[Mailbox, Controller], deliverer: Callable[..., Deliverer], database: Engine
) -> None:
    """A pager that fails three times makes the alert the next person's at once."""
    box, server = mail
    duty, smtp = by_mail(server)
    broken = Recipient(name="Pager", command=["false"])
    sender = deliverer(broken, duty, smtp=smtp, retry_seconds=0.001)
    for _ in range(6):
        sender.deliver_due()
    assert len(box.mails) == 1
    assert "escalated" in box.mails[0]["Subject"]
    assert events(database).count(("escalated", "Duty")) == 1
    assert events(database).count(("delivery_failed", "Pager")) >= 3


@pytest.mark.usefixtures("urgent")
def test_repeats_until_acknowledged_and_then_is_silent(
    mail: tuple[Mailbox, Controller], deliverer: Callable[..., Deliverer], database: Engine
) -> None:
    """Told again after the repeat time; after the acknowledgement never."""
    box, server = mail
    duty, smtp = by_mail(server)
    sender = deliverer(duty, smtp=smtp, repeat_minutes=NOW)
    assert [sender.deliver_due(), sender.deliver_due()] == [1, 1]
    assert box.mails[0]["Message-ID"] != box.mails[1]["Message-ID"]
    with transaction(database) as connection:
        alerts.acknowledge(connection, 1, "Dr Ott", "40% blasts, read back")
    assert sender.deliver_due() == 0


@pytest.mark.usefixtures("urgent")
def test_images_that_changed_are_not_shown(
    share: Path, mail: tuple[Mailbox, Controller], deliverer: Callable[..., Deliverer]
) -> None:
    """A sheet holds the judged images or none; the alert goes out all the same."""
    for image in (share / "PHANTOM-7").rglob("*.jpg"):
        image.write_bytes(b"something else")
    box, server = mail
    duty, smtp = by_mail(server)
    assert deliverer(duty, smtp=smtp).deliver_due() == 1
    assert list(box.mails[0].iter_attachments()) == []
    assert "could not be read" in box.mails[0].get_body().get_content()


@pytest.mark.usefixtures("urgent")
def test_undelivered_alert_is_loud(database: Engine) -> None:
    """Nobody was told: `status` says so, and how long."""
    with transaction(database) as connection:
        now = reading.status(connection)
    assert now.oldest_untold_s is not None
    assert any("reached nobody" in concern for concern in now.concerns)


@pytest.fixture
def on_call_file(tmp_path: Path) -> Path:
    """One program on call, which writes each message into `told` and fails while `broken` is."""
    program = tmp_path / "page"
    program.write_text(
        f"#!/bin/sh\ntest -e {tmp_path}/broken && exit 1\n"
        f"cat >> {tmp_path}/told; echo >> {tmp_path}/told; test -e {tmp_path}/slow && sleep 60\n"
        "exit 0\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    file = tmp_path / "alerts.toml"
    file.write_text(f'retry_seconds = 0.2\n[[on_call]]\nname = "Pager"\ncommand = ["{program}"]\n')
    return file


def told(folder: Path) -> list[dict[str, Any]]:
    file = folder / "told"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines if line]


def test_deliver_process_is_woken_and_recovers(
    installation: Installation,
    on_call_file: Path,
    tmp_path: Path,
    database: Engine,
    share: Path,
) -> None:
    """NOTIFY wakes it; a broken channel is tried again; one message arrives."""
    (tmp_path / "broken").touch()
    installation.environment["SMEARWATCH_ALERTS"] = str(on_call_file)
    installation.start("deliver")
    wait_until(lambda: installation.run("health", "deliver").returncode == 0, 30, "it lives")
    judged_slide(database, share, "PHANTOM-8", **LEUKAEMIA)
    wait_until(lambda: ("delivery_failed", "Pager") in events(database), 20, "it was tried")
    (tmp_path / "broken").unlink()
    wait_until(lambda: ("delivered", "Pager") in events(database), 30, "it arrived")
    assert [message["barcode"] for message in told(tmp_path)] == ["PHANTOM-8"]


def test_killed_between_sending_and_recording(
    installation: Installation,
    on_call_file: Path,
    tmp_path: Path,
    urgent: int,
    database: Engine,
) -> None:
    """kill -9 with the message out and unrecorded: it is sent again under the same key."""
    (tmp_path / "slow").touch()
    installation.environment["SMEARWATCH_ALERTS"] = str(on_call_file)
    first = installation.start("deliver")
    wait_until(lambda: bool(told(tmp_path)), 30, "the message is out")
    kill(first.pid)
    (tmp_path / "slow").unlink()
    installation.start("deliver")
    wait_until(lambda: ("delivered", "Pager") in events(database), 30, "it is recorded")
    keys = {(message["key"], message["slide_id"]) for message in told(tmp_path)}
    assert len(told(tmp_path)) == 2
    assert len(keys) == 1
    assert {slide for _, slide in keys} == {urgent}


def test_drill_goes_the_whole_way(
    installation: Installation, on_call_file: Path, tmp_path: Path, settings: Settings
) -> None:
    """`drill` times a marked alert's delivery, closes it, and leaves no open alert."""
    assert installation.run("drill", "--wait-seconds", "1").returncode == 1  # nobody delivers
    installation.environment["SMEARWATCH_ALERTS"] = str(on_call_file)
    installation.start("deliver")
    done = installation.run("drill", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["told"] == "Pager"
    assert json.loads(done.stdout)["seconds"] < 20
    assert [message["drill"] for message in told(tmp_path)] == [True]
    assert installation.json("alerts") == []
    assert settings.alert_limit_seconds > 0


def test_show_prints_the_verdict_and_draws_the_sheet(
    installation: Installation, urgent: int, tmp_path: Path
) -> None:
    """`alerts show` gives the reasons, the history, and the cells as a picture."""
    sheet = tmp_path / "sheet.png"
    shown = installation.run("alerts", "show", "1", "--sheet", str(sheet))
    assert shown.returncode == 0, shown.stderr
    assert "Suspected acute leukaemia" in shown.stdout
    assert "raised" in shown.stdout
    assert Image.open(sheet).size[0] > 900
    detail = installation.json("alerts", "show", "1")
    assert detail["slide_id"] == urgent
    assert len(detail["most_suspicious"]) == 12
    assert installation.run("alerts", "show", "99").returncode == 1
