"""How the page looks: quiet, in the system's fonts, light or dark as the visitor prefers."""

from typing import Any

import gradio as gr

_CSS = """
.gradio-container { overflow: clip !important; }  /* "hidden" would hold back what is sticky */
.about h1 { margin: 0 0 .25rem; font-size: 1.6rem; font-weight: 600; letter-spacing: -.01em; }
.about p { margin: 0; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.about a { margin: 0 !important; padding: 0 !important; color: inherit !important; }

/* The picture below its label and buttons, not under them. */
.grid .image-container { padding: 2.75rem .75rem .75rem; }
.grid img { width: auto !important; height: auto !important; max-width: 100%; max-height: 85vh; }
.grid.small img { image-rendering: pixelated; }

.grid .meta-text { inset: .2rem 5rem auto auto; background: none; font-family: inherit !important; }

input[type="range"]:focus-visible {
  outline: 2px solid var(--slider-color) !important;
  outline-offset: 4px;
}
.dark input[type="range"] { --neutral-200: var(--neutral-600); }
footer .divider, footer .show-api-divider { display: none; }

/* On a telephone the picture stays in sight while the controls below it move. */
@media (max-width: 720px) {
  .gradio-container main { padding-left: .75rem !important; padding-right: .75rem !important; }
  .picture { order: -1; position: sticky; top: 0; z-index: var(--layer-5); }
  .grid img { max-height: 45vh; }
  .grid.small img { image-rendering: auto; }
}
"""

SCRIPT = """() => document.addEventListener("click", (event) => {
  if (event.target.matches("input[role=combobox]")) event.target.select();
})"""
"""Typing in a menu replaces the entry that is chosen, as one expects of a search."""

_SYSTEM_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_SYSTEM_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")


def theme() -> Any:
    """Quiet colours, and the fonts that the visitor's system has: none is fetched."""
    base = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="md",
        font=_SYSTEM_FONTS,
        font_mono=_SYSTEM_MONO,
    )
    return base.set(body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500")


def css(resolution: int) -> str:
    """The page's style: as wide as the model's pictures need."""
    width = 5 * max(resolution, 128) + 500  # five pictures and the controls
    frame = f"width: 100%; max-width: {width}px !important; margin: 0 auto !important;"
    return f".gradio-container {{ {frame} }}{_CSS}"
