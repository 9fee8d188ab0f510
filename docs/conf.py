"""The configuration of the documentation's site, which `make site` builds.

Sphinx, MyST and Furo are maintained and free (BSD, MIT, MIT), and MyST reads Markdown and anchors
as code hosts do. MkDocs had its last release in 2024, Material for MkDocs ends in May 2027, and
Zensical is a beta that documents Python with plugins of MkDocs.

The source folder is the root of the repository, so a relative link works on the site and on the
code host.
"""

import sys
from dataclasses import is_dataclass

from docutils import nodes
from sphinx import addnodes

from biggan import __version__

project = "biggan"
release = __version__
language = "en"
smartquotes_action = "D"  # dashes only: quoted values stay as they are

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
source_suffix = {".md": "markdown"}
include_patterns = [
    "*.md",
    "docs/*.md",
    "examples/space/README.md",
    "src/biggan/weights/bundled/*.md",
]
exclude_patterns = [".*", "build", "dist", "node_modules", "runs", "site", "tests"]

myst_heading_anchors = 3
myst_enable_extensions = ["html_image"]  # <img> of a width

highlight_language = "none"
pygments_dark_style = "a11y-high-contrast-dark"

default_role = "code"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "biggan"
html_favicon = "../src/biggan/web/page/icon.svg"
html_static_path = ["theme"]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#b33a0a",
        "color-brand-content": "#b33a0a",
        "color-brand-visited": "#b33a0a",
    },
    "dark_css_variables": {
        "color-brand-primary": "#fb923c",
        "color-brand-content": "#fb923c",
        "color-brand-visited": "#fb923c",
    },
}


def keep_colons(_app, what, _name, _object, _options, lines) -> None:
    """Undo what Napoleon does to the docstring of an attribute: "a: b" is no type and text."""
    for line in [line for line in lines if line.startswith(":type: ")]:
        if what in ("attribute", "property"):
            lines[0] = f"{line.removeprefix(':type: ')}: {lines[0]}"
            lines.remove(line)


def list_fields_once(_app, domain, _objtype, content) -> None:
    """Remove those parameters of a dataclass that follow as attributes."""
    if domain != "py":
        return
    signature = content.parent[0]
    module = sys.modules.get(signature["module"])
    if not is_dataclass(getattr(module, signature["fullname"], None)):
        return
    attributes = {
        member[0]["fullname"].rpartition(".")[2]
        for member in content.findall(addnodes.desc)
        if member["objtype"] == "attribute"
    }
    for fields in [node for node in content if isinstance(node, nodes.field_list)]:
        for field in [field for field in fields if field[0].astext().split()[-1] in attributes]:
            fields.remove(field)
        if not fields.children:
            content.remove(fields)


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", keep_colons, priority=600)  # after Napoleon
    app.connect("object-description-transform", list_fields_once, priority=600)  # after autodoc
