"""Ways to reach a person: e-mail, webhook, or a program of the laboratory's choice.

Each channel gets the same message with the same `key`: a receiver that sees a key and number
twice may drop the second, since delivery is at least once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import smtplib
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from smearwatch.on_call import OnCall, Recipient, Smtp

TIMEOUT_SECONDS = 20.0
COMMAND_TIMEOUT_SECONDS = 60.0


class NotDelivered(Exception):
    """A channel could not take the message; the text says why, without secrets."""


@dataclass(frozen=True)
class Message:
    """What one person is told."""

    key: str  # the same for every attempt at the same notice
    subject: str
    text: str
    data: dict[str, Any]
    contact_sheet: bytes | None  # PNG

    def json(self) -> bytes:
        """For programs: the data, the words, and the sheet in base64."""
        sheet = self.contact_sheet and base64.b64encode(self.contact_sheet).decode()
        words = {"subject": self.subject, "text": self.text, "contact_sheet_png": sheet}
        return json.dumps({"key": self.key, **words, **self.data}, default=str).encode()


def send(message: Message, recipient: Recipient, on_call: OnCall) -> None:
    """Hand a message to a recipient's channel.

    Raises:
        NotDelivered: try again later.
    """
    try:
        if recipient.email and on_call.smtp:
            _send_email(message, recipient.email, on_call.smtp)
        elif recipient.webhook and recipient.secret_file:
            _post(message, str(recipient.webhook), recipient.secret_file)
        elif recipient.command:
            _run(message, recipient.command)
    except (
        OSError,
        smtplib.SMTPException,
        http.client.HTTPException,
        subprocess.TimeoutExpired,
    ) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}"[:500]) from error


def _send_email(message: Message, to: str, smtp: Smtp) -> None:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = message.subject, smtp.sender, to
    mail["Message-ID"] = f"<{message.key}@smearwatch>"
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Priority"] = "1"
    mail.set_content(message.text)
    if message.contact_sheet:
        mail.add_attachment(
            message.contact_sheet, maintype="image", subtype="png", filename="cells.png"
        )
    with smtplib.SMTP(smtp.host, smtp.port, timeout=TIMEOUT_SECONDS) as server:
        if smtp.starttls:
            server.starttls(context=ssl.create_default_context())
        if smtp.user and smtp.password_file:
            server.login(smtp.user, _secret(smtp.password_file))
        server.send_message(mail)


def _post(message: Message, url: str, secret_file: Path) -> None:
    """Signed as Standard Webhooks 1.0 says (standardwebhooks.com): HMAC over id, time, body."""
    body, moment = message.json(), str(int(time.time()))
    signed = b".".join((message.key.encode(), moment.encode(), body))
    digest = hmac.new(_secret(secret_file).encode(), signed, hashlib.sha256).digest()
    request = urllib.request.Request(  # noqa: S310 - pydantic admits http and https only
        url,
        data=body,
        method="POST",
        headers={
            "Content-Type": "application/json",
            "webhook-id": message.key,
            "webhook-timestamp": moment,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        },
    )
    try:
        with _OPENER.open(request, timeout=TIMEOUT_SECONDS):
            pass
    except urllib.error.HTTPError as error:
        raise NotDelivered(f"HTTP {error.code} {error.reason}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would go on as a GET without the message, and its 200 would be a lie."""

    def redirect_request(self, *_: object) -> None:
        """Leave the redirect what it is: an answer that is no 2xx."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def _run(message: Message, command: list[str]) -> None:
    done = subprocess.run(  # noqa: S603 - the administrator's own setting
        command,
        input=message.json(),
        capture_output=True,
        timeout=COMMAND_TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise NotDelivered(f"exit {done.returncode}: {said}"[:500])


def _secret(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()
