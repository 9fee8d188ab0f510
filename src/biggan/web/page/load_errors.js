// Explains why the modules of the page do not run. This is a classic script: in a page that is
// opened as a file, browsers run no others.

/** @param {string} sentence */
function explainStalled(sentence) {
  const notice = document.querySelector("#notice");
  const stalled = document.querySelector("#stalled");
  if (!notice || !stalled) return; // page.js runs, and says itself what fails
  stalled.remove();
  notice.textContent = sentence;
  notice.toggleAttribute("hidden", false);
  document.body.classList.add("failed");
}

/** The name of the script that is missing, or that contains the error. @param {Event} event */
function faultyScript(event) {
  const scripts = /** @type {PerformanceResourceTiming[]} */ (
    performance.getEntriesByType("resource")
  ).filter(({ name }) => name.endsWith(".js"));
  const missing = scripts.find(({ responseStatus: status }) => status === 0 || status >= 400);
  const address = missing?.name ?? (event instanceof ErrorEvent ? event.filename : "");
  return address.split("/").pop() || "a script";
}

if (location.protocol === "file:") {
  explainStalled(
    "Browsers do not run the scripts of a page that is opened as a file: open it from a web server, " +
      "such as python -m http.server.",
  );
}
addEventListener(
  "error",
  (/** @type {Event} */ event) => {
    if (!(event instanceof ErrorEvent || event.target instanceof HTMLScriptElement)) return;
    explainStalled(
      `The page is incomplete: ${faultyScript(event)} is missing, blocked or damaged; ` +
        "reload the page, or upload the file again.",
    );
  },
  true, // such events of elements do not bubble
);
