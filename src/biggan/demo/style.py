"""How the page looks: quiet, in the system's fonts, light or dark as the visitor prefers."""

from typing import Any

import gradio as gr

_CSS = """
.gradio-container { overflow: clip !important; }  /* "hidden" would hold back what is sticky */
.fillable { padding: clamp(.5rem, 2.5vw, 2rem) !important; }
.top { align-items: flex-end; }
.about h1 { margin: 0 0 .25rem; font-size: 1.6rem; font-weight: 600; letter-spacing: -.01em;
  overflow-wrap: anywhere; }
.about p { margin: 0; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.about a { margin: 0 !important; padding: 0 !important; color: inherit !important; }
.about summary { width: fit-content; margin-top: .25rem; padding: .25rem 0; cursor: pointer;
  font-size: .875rem; color: var(--body-text-color-subdued); }
.about dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr));
  gap: .5rem 1.5rem; margin: .5rem 0 0; font-size: .875rem; }
.about dt { color: var(--body-text-color-subdued); }
.about dd { margin: 0; overflow-wrap: anywhere; }

/* The picture below its label and buttons, not under them. */
.grid .image-container { padding: 2.75rem .75rem .75rem; }
.grid img { width: auto !important; height: auto !important; max-width: 100%; max-height: 85vh; }
.grid:is(.small, .interpolate, .sweep) :is(.image-frame, img) { width: 100% !important; }
.grid img { object-fit: contain; }
.grid.small img { max-height: 70vh; }
.grid.small img, .grid.video img { image-rendering: pixelated; }
.grid .meta-text { inset: .2rem 5rem auto auto; background: none; font-family: inherit !important; }
.grid .empty { min-height: 12rem; }

/* A heading for each column of the picture, as wide as the column. */
.columns { padding: 0 .75rem !important; margin-bottom: -.5rem; }
.columns :is(.html-container, .prose) { padding: 0 !important; }
.columns .prose { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 1fr);
  font-size: .875rem; font-variant-numeric: tabular-nums; text-align: center; }
.columns.interpolate span { white-space: nowrap; overflow: visible; text-align: left; }
.columns.interpolate span:last-child { direction: rtl; text-align: right; unicode-bidi: plaintext; }
.caption { padding: 0 .25rem !important; margin-top: -.5rem; }
.caption, .caption * { font-size: .8125rem; color: var(--body-text-color-subdued); }
.caption code { overflow-wrap: anywhere; user-select: all; }

.drop .wrap { min-height: 0; padding-top: 1.5rem; font-size: .875rem; line-height: 1.4; }
.drop .icon-wrap { display: none; }

input[type="range"]:focus-visible, .about summary:focus-visible {
  outline: 2px solid var(--slider-color) !important;
  outline-offset: 4px;
}
/* White on white at the left end else. */
input[type="range"]::-webkit-slider-thumb { box-shadow: 0 0 0 1px var(--slider-color) !important; }
input[type="range"]::-moz-range-thumb { box-shadow: 0 0 0 1px var(--slider-color) !important; }
.dark input[type="range"] { --neutral-200: var(--neutral-600); }
footer .divider, footer .show-api-divider { display: none; }

/* On a telephone the picture stays in sight while the controls below it move. */
@media (max-width: 720px) {
  .top { flex-direction: column; align-items: stretch; }
  .tab-container button { padding: .5rem !important; font-size: .75rem; }
  .shown { display: contents !important; }
  .picture { order: -1; position: sticky; top: 0; z-index: var(--layer-5);
    background: var(--body-background-fill); }
  .grid img, .grid.small img { max-height: 38vh; }
  .grid.small img { image-rendering: auto; }
  .columns { margin-bottom: -.25rem; }
  .caption { display: none; }
}
"""

SCRIPT = """() => document.addEventListener("click", (event) => {
  if (event.target.matches("input[role=combobox]")) event.target.select();
})"""
"""Typing in a menu replaces the entry that is chosen, as one expects of a search."""

CLAMP = """(...values) => %s.map((bound, i) => {
  if (bound === null) return values[i];
  const [low, high, whole] = bound;
  const value = Math.min(Math.max(values[i], low), high);
  return whole ? Math.round(value) : value;
})"""
"""Brings half-typed numbers into their range; bounds are to be put in."""

GROW = """(value) => {
  const slider = document.querySelector("#%s input[type=range]");
  return {__type__: "update", maximum: Math.max(slider.max, Math.round(value) || 0)};
}"""
"""Lets a slider reach a number that was typed, or it would be cut; the slider is to be put in."""

ASK = "(times) => times + 1"
"""Asks for a picture of the settings as they are."""

SHOW_ADDRESS = """(query) => {
  if (query) history.replaceState(history.state, "", "?" + query + location.hash);
}"""
"""Writes the settings of the picture into the page's address."""

KEEP = """(...settings) => {
  window.kept ??= JSON.stringify(history.state?.settings) ?? '';
  history.replaceState({...history.state, settings}, "");
}"""
"""Keeps the settings of all forms with the browser's history, for those who come back."""

RECALL = """() => window.kept ??= JSON.stringify(history.state?.settings) ?? ''"""
"""What `KEEP` kept when the page was last here."""

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
