"""What a person is told of an alert: the verdict in words, its figures, and the cells behind it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from db.alerts import OpenAlert, SuspiciousCell
from ensemble import images
from smearwatch import contact_sheet
from smearwatch.contact_sheet import Picture
from smearwatch.rules import DISCLAIMER
from smearwatch.settings import Source
from smearwatch.share import beneath
from worker.channels import Message
from worker.escalation import Notice

SHEET_CELLS = 12


def compose(alert: OpenAlert, notice: Notice, sheet: bytes | None) -> Message:
    """The message of one notice; its key is the same at every attempt."""
    verdict = alert.message
    person = hashlib.sha256(notice.recipient.name.encode()).hexdigest()[:8]
    return Message(
        key=f"{verdict['alert_key']}.{person}.{notice.number}",
        subject=_subject(alert, notice),
        text="\n".join(_lines(alert, notice, sheet)),
        data={
            **verdict,
            "recipient": notice.recipient.name,
            "notice": notice.number,
            "attempt": notice.attempt,
            "escalation": notice.escalation,
        },
        contact_sheet=sheet,
    )


def _subject(alert: OpenAlert, notice: Notice) -> str:
    mark = "again: " if notice.number > 1 else "escalated: " if notice.escalation else ""
    if alert.drill:
        return f"[Smearwatch] {mark}DRILL, no patient: please acknowledge"
    what = "URGENT, APL suspected:" if alert.message["apl_suspected"] else "URGENT"
    return f"[Smearwatch] {mark}{what} slide {_one_line(alert.message['barcode'])}"


def words(verdict: Mapping[str, Any]) -> Iterator[str]:
    """An alert's row of `reporting.alerts`, in words."""
    if verdict["drill"]:
        yield "This is a drill of the alert's way. No slide and no patient stand behind it."
    else:
        apl = ", APL suspected" if verdict["apl_suspected"] else ""
        yield f"Slide {_one_line(verdict['barcode'])}: {verdict['level']}{apl}"
        if verdict["level_now"] != verdict["level"]:
            yield f"Judged again since, with other rules or more images: {verdict['level_now']}"
        yield from _figures(verdict)


def _lines(alert: OpenAlert, notice: Notice, sheet: bytes | None) -> Iterator[str]:
    yield from words(alert.message)
    if sheet is None and not alert.drill:
        yield "The cells' images could not be read; see them on the instrument."
    yield ""
    yield f"Acknowledge: smearwatch alerts ack {alert.id} --by NAME --note WHAT-YOU-READ-BACK"
    if notice.number > 1:
        yield f"This is message {notice.number} to you; nobody has acknowledged yet."
    yield DISCLAIMER


def _figures(verdict: Mapping[str, Any]) -> Iterator[str]:
    figures = verdict["differential"]
    yield ""
    yield from (f"- {reason['text']}" for reason in verdict["structured_reasons"])
    yield ""
    for words, share in (
        ("Blasts", figures["blasts"]),
        ("Promyelocytes", figures["percentages"]["promyelocyte"]),
        ("Blasts and promyelocytes", figures["suspicious"]),
        ("Immature granulocytes", figures["immature_granulocytes"]),
    ):
        low, high = share["interval_percent"]
        of = f"{share['count']} of {share['of']}"
        yield f"{words}: {share['percent']}% ({low} to {high}; {of})"
    if corrected := figures.get("corrected"):
        suspicious = corrected["suspicious"]
        low, high = suspicious["interval_percent"]
        yield (
            f"Corrected for misread cells: {suspicious['percent']}% ({low} to {high}); "
            f"20% or more with probability {corrected['leukaemia_probability']:.2f}"
        )
    yield f"Model {verdict['model_sha256'][:12]}, rules {verdict['rules_version']}"


def _one_line(name: str) -> str:
    """A folder's name comes from the share: nothing in it may start a new header or line."""
    return "".join(c if c.isprintable() else "?" for c in name)


def heading(verdict: Mapping[str, Any]) -> str:
    """What stands over a contact sheet, which may lie about without its message."""
    return f"Alert {verdict['alert_id']}, slide {_one_line(verdict['barcode'])}"


def draw_sheet(
    cells: list[SuspiciousCell], sources: Mapping[str, Source], heading: str
) -> bytes | None:
    """The contact sheet of the most suspicious cells; None where no image can be read."""
    pictures = [
        Picture(
            _image(cell, sources),
            cell.predicted_class.replace("_", " "),
            f"blast or promyelocyte: {cell.suspicion:.0%}",
        )
        for cell in cells
    ]
    if not any(picture.image for picture in pictures):
        return None
    return contact_sheet.draw(pictures, heading)


def _image(cell: SuspiciousCell, sources: Mapping[str, Source]) -> Image.Image | None:
    """The very image that was judged, or None where the share no longer has it."""
    source = sources.get(cell.source)
    if source is None:
        return None
    file = beneath(source.path, f"{cell.path}/{cell.file}")
    if file is None:
        return None
    try:
        data = images.read_bytes(file)
        if hashlib.sha256(data).hexdigest() != cell.sha256:
            return None
        return images.decode(data)
    except images.ImageRejected:
        return None


def why_no_sheet(cells: Sequence[SuspiciousCell], sources: Mapping[str, Source]) -> str:
    """What stands between these cells and their images, and what to do about it."""
    if not cells:
        return "no cell is behind this alert: it is a drill, or the slide's cells were purged"
    name, path = cells[0].source, cells[0].path
    source = sources.get(name)
    if source is None:
        example = json.dumps({name: {"path": "/where/its/share/is"}})
        return f"the share of {name!r} is not known here: set SMEARWATCH_SOURCES='{example}'"
    if not source.path.is_dir():
        return f"the share of {name!r} is away: mount it, and ask again"
    folder = beneath(source.path, path)
    if folder is None or not folder.is_dir():
        return "the slide's folder is no longer on the share: see the cells on the instrument"
    return "the images are not those that were judged, or cannot be read: see the instrument"
