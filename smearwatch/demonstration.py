"""`smearwatch demo`: a small night of phantom slides (or real exports) through everything."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import typer

from smearwatch.settings import Settings, Source

_FOLDER = Path("demo")
_COLUMNS = ("barcode", "state", "level", "leukocytes", "blast_percent", "main_reason", "error_code")


def run(settings: Settings, exports: Path | None) -> int:
    """Run the night once on fresh embedded servers under ./demo and print its verdicts."""
    from smearwatch import supervision

    home = (_FOLDER / "home").absolute()
    shutil.rmtree(home, ignore_errors=True)
    os.environ["SMEARWATCH_HOME"] = str(home)  # the children's too
    root = exports.absolute() if exports else _phantoms(_FOLDER / "exports")
    source = Source(path=root, quiet_seconds=2, scan_seconds=1)
    night = settings.model_copy(
        update={
            "home": home,
            "database_url": None,
            "broker_url": None,
            "sources": {"demo": source},
        }
    )
    started = time.monotonic()
    code = supervision.run(night, once=True)
    _show(night, time.monotonic() - started)
    return code


def _phantoms(root: Path) -> Path:
    from smearwatch import phantoms

    typer.echo(f"drawing phantom slides into {root}; they prove the plumbing, never the model")
    shutil.rmtree(root, ignore_errors=True)
    phantoms.write_night(root)
    return root.absolute()


def _show(settings: Settings, seconds: float) -> None:
    from db import reading
    from db.session import connect, transaction
    from smearwatch import services
    from smearwatch.cli.app import print_table

    with services.running(settings) as found:
        engine = connect(found.database())
        with transaction(engine) as connection:
            rows = reading.slides(connection)
        engine.dispose()
    cells = sum(row["found_cells"] for row in rows)
    print_table(rows, _COLUMNS, f"The night: {len(rows)} slides, {cells} images, {seconds:.0f} s")
    program = Path(sys.argv[0])
    typer.echo("Look further in SQL:")
    typer.echo(f"  SMEARWATCH_HOME={settings.home} {program} psql -c 'TABLE reporting.night'")
    typer.echo("More questions and their queries: docs/sql.md")
