"""What every command shares: the application, its settings, printing as table or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from db.session import Engine
    from smearwatch.settings import Settings

app = typer.Typer(
    name="smearwatch",
    help="The hands-off night worker on blood smear exports. Research use only; no diagnosis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

NEEDS_A_PERSON = 3
PIPE_WIDTH = 160  # characters, where no terminal says its own
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
DISCLAIMER = "Research use only; not a diagnosis."


@app.callback(invoke_without_command=True)
def version(
    ctx: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Print the version and leave, where asked to."""
    if show:
        from smearwatch import __version__

        typer.echo(__version__)
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def configured() -> Settings:
    """The settings, with logging set up by them."""
    from smearwatch import logs
    from smearwatch import settings as configuration

    settings = configuration.load()
    logs.configure(settings.log_format, settings.log_level)
    return settings


@contextmanager
def database() -> Iterator[Engine]:
    """The database: configured, or embedded and then migrated, since nobody else would."""
    from db import migrate
    from db.session import connect
    from smearwatch import services

    settings = configured()
    with services.running(settings) as found:
        engine = connect(found.database())
        try:
            if settings.database_url is None:
                migrate.upgrade(engine)
            yield engine
        finally:
            engine.dispose()


def print_json(value: object) -> None:
    """Write JSON; times in ISO 8601, everything else as it is."""
    typer.echo(json.dumps(value, default=str, ensure_ascii=False, indent=1))


def print_table(rows: Sequence[dict[str, Any]], columns: Sequence[str], title: str) -> None:
    """Write some columns of rows as a table, levels in colour; empty columns are left out."""
    from rich.console import Console
    from rich.table import Table

    filled = [name for name in columns if not rows or any(row[name] is not None for row in rows)]
    table = Table(title=title, caption=DISCLAIMER, title_justify="left", caption_justify="left")
    for column in filled:
        words = column in _PROSE or len(column) > _LONG
        table.add_column(column.replace("_", " "), no_wrap=not words, overflow="fold")
    for row in rows:
        table.add_row(*(levelled(_shown(row[column])) for column in filled))
    console = Console()
    (console if console.is_terminal else Console(width=PIPE_WIDTH)).print(table)


def levelled(text: str) -> Text:
    """A text in its level's or state's colour, if it is one."""
    from rich.text import Text

    return Text(text, style=_STYLE.get(text, ""))


_LONG = 20  # characters of a column's name
_PROSE = {"question", "from", "main_reason", "remedy", "detail", "reasons"}
_STYLE = {
    "urgent": "bold red",
    "review": "yellow",
    "routine": "green",
    "inadequate": "magenta",
    "failed": "bold red",
}


def _shown(value: object) -> str:
    from datetime import datetime

    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    # Names come from a share: nothing in them may move the cursor or break the table.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
