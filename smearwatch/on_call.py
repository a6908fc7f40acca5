"""Who hears of an urgent slide, in which order and how: the laboratory's `alerts.toml`.

docs/alerts.md shows a whole file. Secrets stand in files of their own, named here.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    ValidationError,
    field_validator,
    model_validator,
)


class OnCallError(Exception):
    """The file of people on call cannot be used; the text names the file and the entry."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Smtp(_Table):
    """The laboratory's mail server."""

    host: str
    port: int = 587
    starttls: bool = True
    sender: str
    user: str | None = None
    password_file: Path | None = None


class Recipient(_Table):
    """One person, phone or system, reached over exactly one channel."""

    name: str = Field(min_length=1)
    email: str | None = Field(default=None, pattern=r"^[^@\s]+@[^@\s]+$")
    webhook: HttpUrl | None = None
    secret_file: Path | None = None  # signs the webhook's messages
    command: list[str] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_channel(self) -> Recipient:
        if sum(channel is not None for channel in (self.email, self.webhook, self.command)) != 1:
            raise ValueError(f"{self.name}: give exactly one of email, webhook, command")
        if self.webhook and not self.secret_file:
            raise ValueError(f"{self.name}: a webhook needs secret_file, to sign its messages")
        return self


Minutes = Annotated[float, Field(gt=0)]


class OnCall(_Table):
    """The people on call, the first to be told first."""

    on_call: list[Recipient] = Field(min_length=1)
    smtp: Smtp | None = None
    retry_seconds: float = Field(default=15, gt=0)  # after a failed attempt; doubles with each
    repeat_minutes: Minutes = 10  # the same person again, until somebody acknowledges
    escalate_minutes: Minutes = 15  # without acknowledgement: the next person too

    @field_validator("on_call")
    @classmethod
    def _distinct(cls, people: list[Recipient]) -> list[Recipient]:
        names = [person.name for person in people]
        if len(set(names)) < len(names):
            raise ValueError("two people on call have the same name; the history needs them apart")
        return people

    @model_validator(mode="after")
    def _mail_server(self) -> OnCall:
        if self.smtp is None and any(person.email for person in self.on_call):
            raise ValueError("email needs a table [smtp]")
        return self


def read(file: Path) -> OnCall:
    """Read the laboratory's file.

    Raises:
        OnCallError: it cannot be read, is no TOML, or an entry is missing, unknown or wrong.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OnCallError(f"{file} cannot be read: {error}") from error
    try:
        return OnCall.model_validate(tables)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise OnCallError(f"{file}: {found}") from error
