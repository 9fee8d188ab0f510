"""Print the lowest version of every dependency that pyproject.toml admits, as constraints for pip.

    python scripts/lower_bounds.py > lower.txt

torch is left out: the Makefile names its version.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

_REQUIREMENT = re.compile(r"([\w-]+)>=([\w.]+)(,<[\w.]+)?")


def lower_bounds(project: dict) -> dict[str, str]:
    """The lower bound of each requirement in the `[project]` table, by name.

    Raises:
        ValueError: A requirement has no lower bound, or two have different ones.
    """
    requirements = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        requirements += extra
    bounds: dict[str, str] = {}
    for requirement in requirements:
        found = _REQUIREMENT.fullmatch(requirement)
        if found is None:
            raise ValueError(
                f"{requirement} must be written as name>=lowest or name>=lowest,<first"
            )
        if bounds.setdefault(found[1], found[2]) != found[2]:
            raise ValueError(f"{found[1]} has two lower bounds")
    return bounds


def main() -> None:
    """Print one constraint a line."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, version in lower_bounds(project).items():
        if name != "torch":
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
