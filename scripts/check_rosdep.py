"""Checks that rosdep knows every dependency of package.xml in each distribution.

    python scripts/check_rosdep.py                  # make check runs it
    python scripts/check_rosdep.py make ROSDISTRO   # makes scripts/rosdep_keys.txt anew, from a checkout of
                                                    # github.com/ros/rosdistro

scripts/rosdep_keys.txt has a line for each dependency: the key, and the distributions in which it can be installed
on the Ubuntu release of that distribution.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
KEYS = ROOT / "scripts" / "rosdep_keys.txt"
DISTRIBUTIONS = ("humble", "jazzy", "kilted", "rolling")


def dependencies(package: Path) -> list[str]:
    """The dependencies of a package.xml, sorted."""
    root = ET.parse(package).getroot()
    return sorted(
        {str(e.text).strip() for e in root if e.tag == "depend" or e.tag.endswith("_depend")}
    )


def check(package: Path, keys: Path = KEYS) -> list[str]:
    """One line for each dependency that a distribution does not have."""
    known = dict(line.partition(" ")[::2] for line in keys.read_text().splitlines())
    wrong = []
    for name in dependencies(package):
        missing = [d for d in DISTRIBUTIONS if d not in known.get(name, "").split()]
        if missing:
            wrong.append(
                f"{package.name}: rosdep has no key {name} for {', '.join(missing)}, by {keys.name} "
                "(scripts/check_rosdep.py make ROSDISTRO makes it anew)"
            )
    return wrong


def make(rosdistro: Path) -> None:
    """Writes the list of keys, from a checkout of rosdistro."""
    lines = []
    system: dict[str, Any] = {}
    for name in ("base", "python"):
        system |= yaml.safe_load((rosdistro / "rosdep" / f"{name}.yaml").read_text())
    files = {
        d: yaml.safe_load((rosdistro / d / "distribution.yaml").read_text()) for d in DISTRIBUTIONS
    }
    packages = {d: _packages(file["repositories"]) for d, file in files.items()}
    ubuntu = {d: file["release_platforms"]["ubuntu"] for d, file in files.items()}
    for name in dependencies(ROOT / "package.xml"):
        found = [
            d
            for d in DISTRIBUTIONS
            if name in packages[d] or all(_in_ubuntu(system.get(name), r) for r in ubuntu[d])
        ]
        lines.append(" ".join([name, *found]))
    part = KEYS.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n")
    part.rename(KEYS)


def _packages(repositories: dict[str, Any]) -> set[str]:
    """The names of the packages that are released."""
    released = {
        name: r["release"] for name, r in repositories.items() if "version" in r.get("release", {})
    }
    return {package for name, r in released.items() for package in r.get("packages", [name])}


def _in_ubuntu(rule: Any, release: str) -> bool:
    ubuntu = (rule or {}).get("ubuntu")
    if isinstance(ubuntu, dict) and not set(ubuntu) & {"apt", "packages", "pip"}:
        ubuntu = ubuntu.get(release, ubuntu.get("*"))
    return bool(ubuntu)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["make"] and len(arguments) == 2:
        make(Path(arguments[1]))
        return
    if arguments:
        raise SystemExit(__doc__)
    wrong = check(ROOT / "package.xml")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
