"""Figures for Prometheus, the alarms over them, and a health that living processes do not make."""

from __future__ import annotations

import re
import socket
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from db import processes, reading, slides
from db.models import Priority
from db.session import Engine, engine_url, transaction
from smearwatch import phantoms
from smearwatch.health import ailments
from smearwatch.settings import Settings
from tests.judged import MODEL, judged_slide
from tests.processes import Installation, wait_until

ALARMS = Path(__file__).parents[2] / "deploy/prometheus/alarms.yml"
Figures = dict[tuple[str, ...], float]


class Scrape:
    """A running `smearwatch metrics`, and what it says."""

    def __init__(self, installation: Installation, **environment: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        installation.start("metrics", "--port", str(self.port), **environment)
        wait_until(self._answers, 60, "metrics are served")

    def _answers(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def text(self) -> str:
        """The answer to one scrape."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            body: bytes = answer.read()
        return body.decode()

    def figures(self) -> Figures:
        """Each sample by its name and its labels' values, in order of the labels' names."""
        return {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }


@pytest.fixture
def reader(database: Engine, settings: Settings) -> str:
    """The URL of a login that reads `reporting` and nothing else."""
    with database.begin() as owner:
        if not owner.scalar(text("SELECT 1 FROM pg_roles WHERE rolname = 'a_reader'")):
            owner.execute(text("CREATE ROLE a_reader LOGIN IN ROLE smearwatch_reader"))
    url = engine_url(settings.database()).set(username="a_reader")
    return url.render_as_string(hide_password=False)


def test_figures_are_what_the_database_holds(
    installation: Installation, database: Engine, share: Path, reader: str
) -> None:
    """With a reader's rights: slides, verdicts, alerts, model and beats; and no barcode."""
    judged_slide(database, share, "PHANTOM-1", neutrophil=60, lymphocyte=40)
    judged_slide(database, share, "PHANTOM-2", neutrophil=50, myeloblast=50)
    waiting(database, "PHANTOM-3", "100 s")
    beat(database, "worker", "5 s")
    scrape = Scrape(installation, SMEARWATCH_DATABASE_URL=reader)
    found = scrape.figures()
    assert found["smearwatch_slides", "analysed"] == 2
    assert found["smearwatch_slides", "ready"] == 1
    assert found["smearwatch_slides", "failed"] == 0
    assert found["smearwatch_verdicts_last_day", "urgent"] == 1
    assert found["smearwatch_model_verdicts_last_day", MODEL] == 2
    assert found["smearwatch_alerts", "raised"] == 1
    assert 100 <= found["smearwatch_oldest_waiting_seconds",] < 200
    assert found["smearwatch_oldest_untold_alert_seconds",] > 0
    assert 5 <= found["smearwatch_last_beat_seconds", socket.gethostname(), "worker"] < 100
    assert found["smearwatch_healthy",] == 0  # no ingester lives
    assert "PHANTOM" not in scrape.text()


def waiting(database: Engine, name: str, since: str) -> None:
    """A finished folder that no worker has taken."""
    with transaction(database) as connection:
        known = slides.discover(connection, "di60", name, name, Priority.ROUTINE)
        slides.mark_ready(connection, known.id, slides.Finished(name, "c", 1, None))
        ago = text("UPDATE slides SET ready_at = now() - CAST(:ago AS interval) WHERE id = :id")
        connection.execute(ago, {"ago": since, "id": known.id})


def beat(database: Engine, part: str, ago: str) -> None:
    with transaction(database) as connection:
        processes.beat(connection, part, "")
        seen = text("UPDATE processes SET seen_at = now() - CAST(:ago AS interval) WHERE name = :n")
        connection.execute(seen, {"ago": ago, "n": part})


def test_metrics_outlive_the_database(installation: Installation) -> None:
    """PostgreSQL away: that is what the scrape says, and all it says."""
    scrape = Scrape(installation, SMEARWATCH_DATABASE_URL="postgresql://x@127.0.0.1:1/x")
    assert scrape.figures() == {("smearwatch_database_up",): 0}


@pytest.mark.timeout(240)
def test_stuck_queue_is_unhealthy_though_every_process_lives(
    installation: Installation, database: Engine, share: Path
) -> None:
    """Ingester and worker beat, but look at two Redis databases; healthy once they share one."""
    elsewhere = f"{installation.environment['SMEARWATCH_BROKER_URL']}?virtual_host=1"
    installation.start("ingest")
    stray = installation.start("worker", SMEARWATCH_BROKER_URL=elsewhere)
    drawn = phantoms.PhantomSlide("PHANTOM-1", {"neutrophil": 30, "lymphocyte": 30})
    phantoms.write_slide(drawn, share, np.random.default_rng(1))

    def queued() -> bool:
        with transaction(database) as connection:
            status = reading.status(connection)
        return "queued" in status.slides and not list(ailments(status, 300))

    wait_until(queued, 120, "the slide is queued and both processes live")
    with transaction(database) as connection:
        connection.execute(text("UPDATE slides SET ready_at = now() - interval '1 h'"))
    health = installation.run("health", "--json")
    assert health.returncode == 1
    assert "none is judged" in health.stdout
    assert installation.run("health", "ingest").returncode == 0
    stuck = installation.run("health", "worker")
    assert (stuck.returncode, "none is judged" in stuck.stderr) == (1, True)
    scrape = Scrape(installation)
    found = scrape.figures()
    assert found["smearwatch_healthy",] == 0
    assert found["smearwatch_oldest_waiting_seconds",] > reading.STUCK_AFTER_S
    assert all(value < 60 for (name, *_), value in found.items() if "beat" in name)

    stray.terminate()
    installation.start("worker")
    wait_until(lambda: scrape.figures()["smearwatch_healthy",] == 1, 120, "all is well")
    assert scrape.figures()["smearwatch_oldest_waiting_seconds",] == 0
    assert installation.run("health").returncode == 0


def test_duplicates_do_not_hide_a_stuck_queue(database: Engine, share: Path) -> None:
    """What the ingester finishes alone shows nothing of the workers."""
    waiting(database, "PHANTOM-1", "1 h")
    with transaction(database) as connection:
        copy = slides.discover(connection, "di60", "copy", "copy", Priority.ROUTINE)
        slides.mark_ready(connection, copy.id, slides.Finished("PHANTOM-1", "c", 1, None))
        empty = slides.discover(connection, "di60", "empty", "empty", Priority.ROUTINE)
        slides.fail_discovered(connection, empty.id, slides.Failure("no_images", "-", "-"), None)
        assert reading.status(connection).is_stuck
    judged_slide(database, share, "PHANTOM-2", neutrophil=60)
    with transaction(database) as connection:
        assert not reading.status(connection).is_stuck


def test_restarted_part_is_not_silent(database: Engine) -> None:
    """A part that died and came back under another number lives; one that did not is missed."""
    with transaction(database) as connection:
        for host, pid in (("restarted", 1), ("restarted", 2), ("gone", 1)):
            connection.execute(
                text("INSERT INTO processes (name, host, pid) VALUES ('worker', :host, :pid)"),
                {"host": host, "pid": pid},
            )
        connection.execute(
            text("UPDATE processes SET seen_at = now() - interval '1 h' WHERE pid = 1")
        )
        concerns = reading.status(connection).concerns
    assert [concern[:14] for concern in concerns] == ["worker on gone"]


def test_alarms_speak_of_what_is_served(installation: Installation, database: Engine) -> None:
    """Each alarm's metrics and labels are served, its limit is ours, and it says what to do."""
    beat(database, "worker", "1 s")
    served = Scrape(installation).figures()
    names, labels = {key[0] for key in served}, {key[1:] for key in served}
    (group,) = yaml.safe_load(ALARMS.read_text())["groups"]
    for rule in group["rules"]:
        mentioned = set(re.findall(r"smearwatch_\w+", rule["expr"]))
        assert mentioned <= names | SERVED_LATER, rule["alert"]
        for value in re.findall(r'\{\w+="(\w+)"\}', rule["expr"]):
            assert value == "smearwatch" or any(value in label for label in labels)
        assert rule["labels"]["severity"] in {"critical", "ticket"}
        assert {"summary", "remedy"} <= rule["annotations"].keys()
    limits = _limits(group["rules"])
    assert limits["SmearwatchQueueStuck"] == [reading.STUCK_AFTER_S] * 2
    assert limits["SmearwatchSilent"] == [reading.SILENT_AFTER_S]
    assert limits["SmearwatchAlertReachedNobody"] == [
        Settings.model_fields["alert_limit_seconds"].default
    ]


# Absent until a slide is judged.
SERVED_LATER = {"smearwatch_newest_verdict_seconds", "smearwatch_model_verdicts_last_day"}


def _limits(rules: list[dict[str, Any]]) -> dict[str, list[int]]:
    return {
        rule["alert"]: [int(n) for n in re.findall(r"[<>]=? (\d+)", rule["expr"])] for rule in rules
    }


def test_clock_set_back_hides_neither_a_stuck_queue_nor_an_untold_alert(
    database: Engine, share: Path
) -> None:
    """What waited before an hour was taken back still counts as waiting."""
    judged_slide(database, share, "PHANTOM-1", neutrophil=60, myeloblast=40)
    with transaction(database) as connection:
        slides.discover(connection, "di60", "A1", "A1", Priority.ROUTINE)
        connection.execute(
            text(
                "UPDATE slides SET state = 'ready', ready_at = now() + interval '40 min' "
                "WHERE path = 'A1'"
            )
        )
        connection.execute(text("UPDATE alerts SET raised_at = now() + interval '40 min'"))
        seen = reading.status(connection)
    assert seen.oldest_waiting_s == pytest.approx(2400, abs=60)
    assert seen.oldest_untold_s == pytest.approx(2400, abs=60)


def test_last_word_of_a_dead_process_is_no_concern(database: Engine) -> None:
    """It was restarted under another number, and what it complained of is over."""
    with transaction(database) as connection:
        processes.beat(connection, "ingest", "1 sources", "source x cannot be reached")
        assert "source x" in " ".join(reading.status(connection).concerns)
        connection.execute(text("UPDATE processes SET pid = 1, seen_at = now() - interval '5 min'"))
        processes.beat(connection, "ingest", "1 sources", None)
        assert reading.status(connection).concerns == []
