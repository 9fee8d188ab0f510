// What the pages of the site do in the browser.

const frame = document.querySelector("#live");

if (frame instanceof HTMLIFrameElement) {
  frame.addEventListener("load", () => embed(frame));
  const page = frame.contentDocument;
  if (page?.readyState === "complete" && page.URL !== "about:blank") embed(frame);
}

/**
 * Make the generator a part of the first page: without a heading and margins of its own, in the
 * page's colours, and as high as its contents.
 *
 * @param {HTMLIFrameElement} frame
 */
function embed(frame) {
  const page = frame.contentDocument;
  if (!page) return;
  const root = page.documentElement;
  page.querySelector("header")?.toggleAttribute("hidden", true);
  page.body.style.padding = "0";

  // The frame is higher than the screen: a dialog belongs into the part that is visible.
  const dialog = page.querySelector("dialog");
  const centre = () => {
    const { top, height } = frame.getBoundingClientRect();
    const below = Math.max(top + height - innerHeight, 0);
    if (dialog) dialog.style.insetBlock = `${Math.max(-top, 0)}px ${below}px`;
  };
  if (dialog) new MutationObserver(centre).observe(dialog, { attributeFilter: ["open"] });

  const resize = () => (frame.style.height = `${root.offsetHeight}px`);
  new ResizeObserver(resize).observe(root);

  const recolour = () => {
    const { theme } = document.body.dataset;
    root.style.colorScheme = theme === "light" || theme === "dark" ? theme : "light dark";
    root.style.setProperty("--ground", getComputedStyle(document.body).backgroundColor);
  };
  new MutationObserver(recolour).observe(document.body, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
  recolour();
}

// The captions of the navigation are headings, and a heading has a level.
for (const heading of document.querySelectorAll("[role=heading]:not([aria-level])")) {
  heading.ariaLevel = "2";
}

// Keys scroll what is wider than the screen.
addEventListener("load", () => {
  for (const box of document.querySelectorAll("pre, .table-wrapper")) {
    if (box instanceof HTMLElement && box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
