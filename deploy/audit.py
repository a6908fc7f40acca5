"""`make audit`: a bill of materials of each image, and what is known against its packages.

Without the internet the bills are written all the same, and the second half says aloud that
nothing was checked: pip-audit alone would call that "no known vulnerabilities".
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BILLS = ROOT / "build" / "sbom"
IMAGES = ("ingest", "worker-cpu", "worker-gpu", "run")


def write_bill(image: str, programs: Path) -> Path:
    """The CycloneDX bill of materials of what an image installs, with its hashes."""
    BILLS.mkdir(parents=True, exist_ok=True)
    bill = BILLS / f"{image}.cdx.json"
    requirements = ROOT / "requirements" / f"{image}.txt"
    command = [programs / "cyclonedx-py", "requirements", requirements, "-o", bill]
    subprocess.run(  # noqa: S603 - pinned by requirements/audit.txt
        [*command, "--pyproject", ROOT / "pyproject.toml", "--output-reproducible"], check=True
    )
    return bill


def ask(image: str, programs: Path) -> dict[str, Any]:
    """What pip-audit finds about an image's packages; nothing where it could not ask."""
    requirements = ROOT / "requirements" / f"{image}.txt"
    options = ("--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json")
    done = subprocess.run(  # noqa: S603 - pinned by requirements/audit.txt
        [programs / "pip-audit", *options, "-r", requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout.strip() else {}
    return found


def verdict(image: str, answer: dict[str, Any]) -> tuple[bool, str]:
    """Whether nothing is known against an image, and the sentence that says so or says more."""
    packages = answer.get("dependencies", [])
    checked = [one for one in packages if "skip_reason" not in one]
    known = [
        f"{one['name']} {one['version']}: {flaw['id']}, mended in {flaw['fix_versions'] or 'none'}"
        for one in checked
        for flaw in one["vulns"]
    ]
    if known:
        return False, f"{image}: KNOWN VULNERABILITIES\n  " + "\n  ".join(known)
    if not checked:
        return True, f"{image}: NOT CHECKED, since the advisory database cannot be reached"
    if len(checked) < len(packages):
        return True, f"{image}: {len(checked)} of {len(packages)} packages checked, nothing known"
    return True, f"{image}: {len(checked)} packages checked, nothing known"


def main(programs: Path) -> int:
    """Exit 1 if something is known."""
    fine = True
    for image in IMAGES:
        bill = write_bill(image, programs)
        passed, sentence = verdict(image, ask(image, programs))
        sys.stdout.write(f"{bill.relative_to(ROOT)} written\n{sentence}\n")
        fine = fine and passed
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.executable).parent))
