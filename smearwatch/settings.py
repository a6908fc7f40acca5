"""Every setting, from the environment (`SMEARWATCH_...`), a `.env` file or a secrets folder.

`docs/reference/settings.md` lists them; a test keeps it complete.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError


class Source(BaseModel):
    """One folder that an instrument (or its computer) writes slides into."""

    model_config = ConfigDict(extra="forbid")

    path: Path
    poll: bool = Field(
        default=False, description="scan only; for SMB and NFS, which send no events"
    )
    scan_seconds: float = Field(default=10, gt=0, description="between two full scans")
    quiet_seconds: float = Field(default=60, ge=0, description="unchanged for so long: finished")
    expected_cells: int | None = Field(default=None, gt=0, description="so many images: finished")
    marker: str | None = Field(default=None, description="a file of this name: finished")
    settle_limit_seconds: float = Field(
        default=6 * 3600, gt=0, description="still changing after so long: failed"
    )
    stat: str | None = Field(
        default=None, description="glob on the path under the source; matching slides go first"
    )


class Settings(BaseSettings):
    """How this installation runs; nothing set means one machine with embedded servers."""

    model_config = SettingsConfigDict(
        env_prefix="SMEARWATCH_",
        env_file=".env",
        env_nested_delimiter="__",
        secrets_dir=os.environ.get("SMEARWATCH_SECRETS_DIR"),
        extra="ignore",
    )

    home: Path = Field(
        default=Path.home() / ".smearwatch", description="where embedded servers keep their data"
    )
    database_url: SecretStr | None = Field(
        default=None, description="postgresql://...; unset: embedded PostgreSQL under home"
    )
    broker_url: SecretStr | None = Field(
        default=None, description="redis://...; unset: embedded Valkey under home"
    )
    sources: dict[str, Source] = Field(
        default_factory=dict, description="name -> folder to watch and how"
    )
    bundle: Path | None = Field(default=None, description="model bundle; unset: the one shipped")
    rules: Path | None = Field(
        default=None, description="the laboratory's stricter thresholds; unset: as shipped"
    )
    engine: Literal["openvino", "tensorflow"] = Field(
        default="openvino", description="openvino for CPU, tensorflow for GPU"
    )
    precision: Literal["auto", "f32", "bf16"] = Field(
        default="auto",
        description="of OpenVINO: f32, bf16, or auto: bf16 where the processor has it",
    )
    cascade: bool = Field(
        default=False,
        description="one network alone decides clear cells, where the bundle says which are",
    )
    allow_cpu: bool = Field(
        default=False, description="let the tensorflow engine run where no GPU is found"
    )
    batch: int | None = Field(
        default=None, gt=0, description="images classified at once; unset: 16, or 128 on a GPU"
    )
    finish_seconds: float = Field(
        default=20, gt=0, description="told to stop, a worker gives its slide back after so long"
    )
    alerts: Path | None = Field(
        default=None, description="alerts.toml: who is told of an urgent slide, and how"
    )
    alert_limit_seconds: float = Field(
        default=300, gt=0, description="an alert that reached nobody for so long is a failure"
    )
    log_format: Literal["json", "console"] = Field(
        default="console", description="console, or json for machines"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="DEBUG, INFO, WARNING or ERROR: the least that is logged"
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @property
    def bundle_path(self) -> Path:
        """The configured bundle, or the one this package ships."""
        return self.bundle or shipped_bundle()

    def database(self) -> str:
        """PostgreSQL's URL, with its password.

        Raises:
            LookupError: none is configured and the embedded servers are not running.
        """
        return _required(self.database_url, "SMEARWATCH_DATABASE_URL")

    def broker(self) -> str:
        """Redis' URL, with its password.

        Raises:
            LookupError: none is configured and the embedded servers are not running.
        """
        return _required(self.broker_url, "SMEARWATCH_BROKER_URL")


class WrongSetting(Exception):
    """A setting that cannot be; the text names the variable and what it may be."""


def load() -> Settings:
    """The settings of this process.

    Raises:
        WrongSetting: a variable holds what it may not.
    """
    try:
        return Settings()
    except ValidationError as error:
        found = (
            f"{'__'.join(['SMEARWATCH', *map(str, problem['loc'])]).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        raise WrongSetting("; ".join(found).replace("SMEARWATCH__", "SMEARWATCH_")) from error
    except SettingsError as error:
        names = [name for name in Settings.model_fields if f'"{name}"' in str(error)]
        variables = ", ".join(f"SMEARWATCH_{name.upper()}" for name in names)
        raise WrongSetting(f"{variables}: not valid JSON") from error


def shipped_bundle() -> Path:
    """The bundle in the installed package, or in `models/` of a source checkout."""
    here = Path(__file__).parent
    installed = here / "model"
    return installed if installed.exists() else here.parent / "models" / "smearwatch-3"


def _required(secret: SecretStr | None, variable: str) -> str:
    if secret is None:
        raise LookupError(f"{variable} is not set")
    return secret.get_secret_value()
