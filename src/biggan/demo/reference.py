"""The page that describes the HTTP API: its OpenAPI schema as plain HTML, which loads nothing."""

import html
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>biggan: HTTP API</title>
<style>
:root { color-scheme: light dark; }
body { max-width: 56rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5;
  font-family: system-ui, sans-serif; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
</style>"""


def reference_page(schema: dict[str, Any], models: Sequence[str]) -> str:
    """Describe an API.

    Args:
        schema: As `FastAPI.openapi` returns it; its operations all are GET.
        models: The names that can be asked for.

    Returns:
        A page of HTML.
    """
    operations = [_operation(path, methods["get"]) for path, methods in schema["paths"].items()]
    named = ", ".join(f"<code>{html.escape(name)}</code>" for name in models)
    return "\n".join(
        [
            _HEAD,
            "<h1>HTTP API</h1>",
            f"<p>{html.escape(schema['info']['description'])}</p>",
            f"<p>Models: {named}. For programs: "
            '<a href="/api/openapi.json">the same in OpenAPI</a>.</p>',
            *operations,
            "</html>",
        ]
    )


def _operation(path: str, operation: dict[str, Any]) -> str:
    parameters = operation.get("parameters", [])
    given = {p["name"]: p["schema"]["default"] for p in parameters if p["schema"].get("default")}
    link = html.escape(f"{path}?{urlencode(given)}" if given else path)
    rows = "".join(map(_row, parameters))
    heads = "<tr><th>name</th><th>value</th><th>meaning</th></tr>"
    return (
        f"<h2><code>GET {html.escape(path)}</code></h2>"
        f"<p>{html.escape(operation['summary'])} For example <a href='{link}'>{link}</a></p>"
        + (f"<table>{heads}{rows}</table>" if rows else "")
    )


def _row(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    kind = " or ".join(schema["enum"]) if "enum" in schema else schema["type"]
    if "minimum" in schema:
        kind += f", {schema['minimum']} to {schema['maximum']}"
    if schema.get("default", "") != "":
        kind += f"; {schema['default']} if left out"
    cells = (f"<code>{parameter['name']}</code>", kind, parameter.get("description", ""))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
