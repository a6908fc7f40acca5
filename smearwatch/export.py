"""What an export of the instrument looks like on disk: which folders are slides, which files cells.

    root -> find_slides -> list_cells -> contents (cheap: has it changed?)
                                      -> slide_fingerprint (reads every byte: is it the same?)

Slides come as `<slide>/Signed slides/<class>/<code>_<id>.jpg`, as `<slide>/Unsigned slides/*.jpg`,
as `<slide>/<class>/*.jpg` or as a flat folder. Everything here only reads, follows no symbolic
link below the folder it is given, and takes any name a file system can hold.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from smearwatch.share import open_regular
from smearwatch.taxonomy import Kind, export_class

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
MAX_HASHED = 64 * 2**20  # bytes of one file; cells have thousands, overviews millions
MAX_FILES = 20_000  # entries of one slide, Thumbs.db and all; a slide has hundreds

_SIGNED = frozenset({"signed slides", "unsigned slides"})
# What file servers put beside the exports; their thumbnails and snapshots are cells twice over.
_SERVERS_OWN = frozenset(
    {"lost+found", "system volume information", "$recycle.bin", "@eadir", "#recycle", "#snapshot"}
)
_TIME = re.compile(r"\d{4}-?\d{2}-?\d{2}([_ T-]\d{2}[-:.]?\d{2}([-:.]?\d{2})?)?")


class ExportError(Exception):
    """A folder that cannot be read as a slide; the code says why, the remedy what to do.

    Codes: `vanished`, `no_permission`, `no_images`, `bad_name`, `too_many_files`, `unreadable`,
    `outside_share`, `unknown_source`.
    """

    def __init__(self, code: str, text: str, remedy: str) -> None:
        super().__init__(text)
        self.code = code
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class CellFile:
    """One image file of a slide.

    Attributes:
        path: absolute, to open it.
        name: relative to the slide, to speak of it; valid UTF-8, and no two files share one.
        instrument_class: what the instrument calls the cell, in its own words.
        size: bytes.
        modified_ns: as the file system says; compare it, but never with a clock.
        regular: False for a link, socket, pipe or device, which nobody may open.
    """

    path: Path
    name: str
    instrument_class: str | None
    size: int
    modified_ns: int
    regular: bool


def find_slides(root: Path, max_depth: int = 6) -> Iterator[Path]:
    """Slide folders below `root`, or `root` itself, in order of their names.

    A folder is a slide if at least half of its folders are of (un)signed slides or classes of the
    instrument, or if it holds images itself. An image or such a folder that strayed among many
    slides must not make one slide, one patient, of them all: a folder with folders two deep that
    are neither is searched instead, and so is a `root` that has images beside other folders.

    Folders without any image, folders that cannot be read and links to folders outside `root` come
    too, so that somebody hears of them.
    """
    return _search(root, max_depth, root)


def _search(folder: Path, depth: int, root: Path) -> Iterator[Path]:
    try:
        folders, links, has_images = _look_into(folder)
    except FileNotFoundError:
        return
    except OSError:
        yield folder
        return
    nothing_yet = not (folders or links or has_images or folder == root)
    if nothing_yet or _is_slide(folder, folders, has_images=has_images, at_root=folder == root):
        yield folder
    elif depth > 0:
        yield from (folder / name for name in links if _leads_out(folder / name, root))
        for name in folders:
            yield from _search(folder / name, depth - 1, root)


def _leads_out(link: Path, root: Path) -> bool:
    return not Path(os.path.realpath(link)).is_relative_to(os.path.realpath(root))


def _is_slide(folder: Path, folders: Sequence[str], *, has_images: bool, at_root: bool) -> bool:
    others = [name for name in folders if not (_is_class(name) or _is_signed(name))]
    mostly_its_own = 2 * len(others) <= len(folders) and len(folders) > 0
    flat = has_images and not (at_root and others)
    return (mostly_its_own or flat) and not any(_has_folders(folder / name) for name in others)


def _look_into(folder: Path) -> tuple[list[str], list[str], bool]:
    """The folders in a folder, and links to folders, sorted; and whether images lie beside them."""
    folders, links, has_images = [], [], False
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_servers_own(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif _is_linked_folder(entry):
                links.append(entry.name)
            else:
                has_images = has_images or _is_image(entry.name)
    return sorted(folders), sorted(links), has_images


def _is_linked_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_symlink() and entry.is_dir()
    return False


def _has_folders(folder: Path) -> bool:
    try:
        return bool(_look_into(folder)[0])
    except OSError:
        return False


def _is_servers_own(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SERVERS_OWN


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _is_signed(name: str) -> bool:
    return name.strip().lower() in _SIGNED


def _is_class(name: str) -> bool:
    """True for a class's name. Not for `BL0012345`, a barcode that begins like one."""
    plain = name.isascii() and not any(letter.isdigit() for letter in name)
    return plain and export_class(name).kind is not Kind.UNKNOWN


def list_cells(slide: Path) -> list[CellFile]:
    """Every image under the slide, by name, however deep; files that just vanished are left out.

    Raises:
        ExportError: the folder, or a folder in it, cannot be listed in full, or has no image.
    """
    slide = slide.absolute()
    _require_storable(slide)
    try:
        cells = [cell for entry in _image_entries(slide) if (cell := _cell(entry, slide))]
    except OSError as error:
        raise _cannot_list(slide, error) from error
    if not cells:
        raise ExportError(
            "no_images", f"the folder {slide.name!r} holds no cell image", "export the slide again"
        )
    return sorted(cells, key=lambda cell: cell.name)


def _image_entries(slide: Path) -> Iterator[os.DirEntry[str]]:
    folders, seen = [slide], 0
    while folders:
        folder = folders.pop()
        try:
            scan = os.scandir(folder)
        except FileNotFoundError:
            if folder == slide:
                raise
            continue
        with scan as entries:
            for entry in entries:
                seen += 1
                if seen > MAX_FILES:
                    raise _too_many_files(slide)
                if _is_servers_own(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif _is_image(entry.name) or _is_linked_folder(entry):
                    yield entry  # whoever put cells behind a link hears that they do not count


def _cell(entry: os.DirEntry[str], slide: Path) -> CellFile | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    path = Path(entry.path)
    relative = path.relative_to(slide)
    return CellFile(
        path=path,
        name=_shown(relative.as_posix()),
        instrument_class=_instrument_class(relative.parts[:-1], path.name),
        size=status.st_size,
        modified_ns=status.st_mtime_ns,
        regular=stat.S_ISREG(status.st_mode),
    )


def _instrument_class(folders: Sequence[str], file_name: str) -> str | None:
    for outer, inner in pairwise(folders):
        if _is_signed(outer):
            return _shown(inner)
    for name in reversed(folders):
        if _is_class(name):
            return name
    code = file_name.partition("_")[0]
    return code if code.isalpha() and _is_class(code) else None


def _shown(name: str) -> str:
    """A name as valid UTF-8; a backslash is doubled, so that no two names look the same."""
    escaped = os.fsencode(name).replace(b"\\", b"\\\\")
    return escaped.decode("utf-8", errors="backslashreplace")


def _require_storable(slide: Path) -> None:
    """A worker opens the folder by the path in the database, which holds UTF-8 only.

    Raises:
        ExportError: the path has bytes that are no UTF-8.
    """
    try:
        storable = b"\0" not in str(slide).encode()
    except UnicodeEncodeError:
        storable = False
    if not storable:
        raise ExportError(
            "bad_name",
            f"the folder's name {slide.name!r}, or one above it, is not valid UTF-8",
            "rename the folder; it is then taken up as a new slide",
        )


def _too_many_files(slide: Path) -> ExportError:
    return ExportError(
        "too_many_files",
        f"the folder {slide.name!r} holds more than {MAX_FILES} files",
        "it is no single slide: give each slide a folder of its own",
    )


def _cannot_list(slide: Path, error: OSError) -> ExportError:
    if isinstance(error, FileNotFoundError):
        return ExportError(
            "vanished", f"the folder {slide.name!r} is no longer there", "export the slide again"
        )
    if isinstance(error, PermissionError):
        return ExportError(
            "no_permission",
            f"the folder {slide.name!r}, or one in it, may not be read",
            "let Smearwatch's user read the folder and all below it",
        )
    return ExportError(
        "unreadable",
        f"the folder {slide.name!r} cannot be listed: {error.strerror or 'input/output error'}",
        "look at the file server and its disk",
    )


def contents(cells: Iterable[CellFile]) -> str:
    """SHA-256 over names, sizes and times: opens no file, so it can be asked at every scan."""
    digest = hashlib.sha256()
    for cell in sorted(cells, key=lambda cell: cell.name):
        _add(digest, cell.name.encode(), b"%d" % cell.size, b"%d" % cell.modified_ns)
    return digest.hexdigest()


def fingerprint(files: Iterable[tuple[str, int, bytes]]) -> str:
    """SHA-256 over each file's relative name, size and content hash, in any order."""
    digest = hashlib.sha256()
    for name, size, content in sorted(files):
        _add(digest, name.encode(), b"%d" % size, content)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, *parts: bytes) -> None:
    """Each part with its length, so that no two lists of parts give the same bytes."""
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)


def slide_fingerprint(cells: Iterable[CellFile]) -> str:
    """The fingerprint of a slide's files as they are now; reads all of them."""
    return fingerprint((cell.name, cell.size, _content_or_nothing(cell)) for cell in cells)


def _content_or_nothing(cell: CellFile) -> bytes:
    try:
        return content_hash(cell.path) if cell.regular else b""
    except OSError:
        return b""


def content_hash(path: Path) -> bytes:
    """SHA-256 of a regular file, read piece by piece, of no more than MAX_HASHED bytes.

    A file that is longer is no cell, and might be endless; its size is in every fingerprint.

    Raises:
        OSError: as `open_regular` says.
    """
    digest, left = hashlib.sha256(), MAX_HASHED
    with open_regular(path) as file:
        while piece := file.read(min(left, 2**20)):
            digest.update(piece)
            left -= len(piece)
    return digest.digest()


def barcode(slide: Path, root: Path) -> str:
    """The slide's barcode: its folder's name, or the name above where that names no slide."""
    slide, root = slide.absolute(), root.absolute()
    names_none = _TIME.fullmatch(slide.name) or _is_signed(slide.name)
    if names_none and root in slide.parent.parents:
        return _shown(slide.parent.name)
    return _shown(slide.name)
