"""Plain data as TOML, which the standard library only reads."""

import json
from collections.abc import Mapping
from typing import Any


def to_toml(values: Mapping[str, Any]) -> str:
    """Write plain data (scalars, lists, one level of tables and of lists of them) as TOML."""

    def line(key: str, value: object) -> str:
        # JSON's strings, numbers, booleans and arrays of them are valid TOML.
        return f"{key} = {json.dumps(value, ensure_ascii=False)}"

    tables: list[tuple[str, Mapping[str, Any]]] = []
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            tables.append((f"[{key}]", value))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [(f"[[{key}]]", member) for member in value]
        else:
            lines.append(line(key, value))
    for heading, members in tables:
        lines += ["", heading, *(line(*member) for member in members.items())]
    return "\n".join(lines) + "\n"
