// What the page does in the browser, without the server. Gradio runs this function once.
() => {
  const tabInAddress = () => new URLSearchParams(location.search).get("form") ?? "explore";

  // Typing in a menu replaces the entry that is chosen, as in a search field.
  document.addEventListener("click", (event) => {
    if (event.target.matches("input[role=combobox]")) event.target.select();
  });

  // Back and Forward open the tab that the address names.
  window.addEventListener("popstate", () => {
    document.getElementById(`${tabInAddress()}-tab-button`)?.click();
  });

  window.biggan = {
    // A tab is opened: one more entry in the browser's history, unless the browser went back to it.
    openTab(form) {
      if (form !== tabInAddress()) {
        const root = location.href.split(/[?#]/)[0];
        history.pushState(history.state, "", `${root}?form=${form}${location.hash}`);
      }
      return form;
    },

    // A picture is drawn: the address says how.
    showAddress(query) {
      if (query) history.replaceState(history.state, "", `?${query}${location.hash}`);
    },

    // The settings of all tabs are kept with the browser's history, for Back and reloading.
    keep(...settings) {
      window.kept ??= JSON.stringify(history.state?.settings) ?? "";
      history.replaceState({ ...history.state, settings }, "");
    },
    recall: () => (window.kept ??= JSON.stringify(history.state?.settings) ?? ""),

    async copyLink() {
      const link = location.href;
      try {
        await navigator.clipboard.writeText(link);
      } catch {  // not allowed on a page without https
        const field = Object.assign(document.createElement("textarea"), { value: link });
        document.body.append(field);
        field.select();
        document.execCommand("copy");
        field.remove();
      }
      const button = document.getElementById("copy-link");
      button.textContent = "Link copied";
      setTimeout(() => { button.textContent = "Copy link"; }, 2000);
    },
  };
}
