"""Checks that a tag, the version and the changelog's first heading agree: check_release.py TAG."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def problems(tag: str) -> list[str]:
    """Returns why a tag must not be published; nothing if it may be."""
    source = (ROOT / "fedtlu_fast" / "_version.py").read_text(encoding="utf-8")
    version = re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)[0]
    heading = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0]
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, but fedtlu_fast/_version.py says {version}: expected v{version}")
    if not re.fullmatch(rf"{re.escape(version)} \(\d{{4}}-\d\d-\d\d\)", heading):
        found.append(
            f"the first heading of CHANGELOG.md is '## {heading}': expected '## {version} (YYYY-MM-DD)'"
        )
    return found


if __name__ == "__main__":
    sys.exit("\n".join(problems(sys.argv[1])) or 0)
