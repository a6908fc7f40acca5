"""The way into a share: below its root, over no link, and to regular files only."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from itertools import accumulate
from pathlib import Path


def beneath(root: Path, path: str) -> Path | None:
    """Where `path` lies below `root`; None where anything in it leads elsewhere.

    Paths come back from the database and from exports, and neither decides what is opened.
    """
    relative = Path(path)
    if relative.is_absolute() or ".." in relative.parts or "\0" in path:
        return None
    steps = accumulate(relative.parts, Path.joinpath, initial=root)
    next(steps)  # the root itself is the administrator's choice, and may be a link
    return None if any(step.is_symlink() for step in steps) else root / relative


def answers(root: Path) -> bool:
    """True while the share is there: one that is not mounted fails, or is an empty folder."""
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def open_regular(path: Path) -> BufferedReader:
    """Open a file of the share for reading, and nothing that could lead away or hold us.

    Raises:
        OSError: it cannot be read, or has become a link, pipe or device since it was listed.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold us
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return os.fdopen(descriptor, "rb")
