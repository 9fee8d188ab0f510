// What the page does in the browser, without the server. Gradio runs this function once.
() => {
  const largest = LARGEST_NUMBERS;  // that may be typed, by the controls' ids
  const tabInAddress = () => new URLSearchParams(location.search).get("form") ?? "explore";

  // Typing in a menu replaces the entry that is chosen, as in a search field. A click opens the
  // menu, also where Escape has closed it.
  document.addEventListener("click", ({ target }) => {
    if (!target.matches("input[role=combobox]")) return;
    target.select();
    if (target.ariaExpanded === "true" || target.closest(".combobox")) return;
    target.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  });

  // Back and Forward open the tab that the address names.
  window.addEventListener("popstate", () => {
    document.getElementById(`${tabInAddress()}-tab-button`)?.click();
  });

  // A picture is loaded: old ones are no longer dimmed. What is unfinished is shown over the old
  // picture if both have the same layout.
  document.addEventListener("load", ({ target }) => {
    const picture = target.closest?.(".picture");
    if (!picture || target.tagName !== "IMG") return;
    picture.classList.remove("pending");
    const shape = (target.naturalWidth / target.naturalHeight).toFixed(3);
    if (!target.closest(".unfinished")) {
      Object.assign(picture.dataset, { shape, source: target.src });
    }
    const isSame = picture.dataset.shape === shape;
    picture.style.setProperty("--old", isSame ? `url("${picture.dataset.source}")` : "none");
  }, true);

  // A number that is out of range when one leaves its box is corrected, and a line says so.
  document.addEventListener("input", ({ target }) => {
    document.querySelectorAll(".correction").forEach((line) => line.remove());
    if (target.matches(".fields input[type=number]")) target.dataset.typed = target.value;
  });
  document.addEventListener("focusout", ({ target }) => {
    const typed = target.dataset?.typed;
    if (typed === undefined || !target.matches(".fields input[type=number]")) return;
    delete target.dataset.typed;
    const block = target.closest(".block");
    const [low, high] = [Number(target.min), largest[block.id]];
    const whole = Number(target.step) % 1 === 0;
    let number = Math.min(Math.max(typed === "" ? low : Number(typed), low), high);
    if (whole) number = Math.round(number);
    if (typed !== "" && number === Number(typed)) return;
    const kind = whole ? "whole numbers" : "numbers";
    const line = document.createElement("p");
    line.className = "correction";
    line.setAttribute("role", "alert");
    line.textContent = `This takes ${kind} from ${low} to ${high}: `
      + `${typed === "" ? "nothing" : typed} became ${number}.`;
    target.value = number;
    target.dispatchEvent(new Event("input", { bubbles: true }));
    delete target.dataset.typed;
    block.append(line);
  }, true);

  // The server closes its stream of answers after the last one, and Gradio's client opens the next
  // one with its next request. The answer to a request that comes between the two would never be
  // read. So the client keeps its first stream, which passes on what those of the server send.
  const plainFetch = window.fetch;
  const requests = new Map();  // 1 for one that is not answered, -1 for an answer that came before
  let wake = () => {};  // what waits for a request
  let failure = null;  // of the stream

  function count(id, by) {
    if (!requests.delete(id)) requests.set(id, by);
  }

  async function join(request, options) {
    const answer = await plainFetch(request, options);
    const { event_id: id } = await answer.clone().json().catch(() => ({}));
    if (failure) throw failure;  // Gradio's client says so, and loads the page again
    if (id) count(id, 1);
    wake();
    return answer;
  }

  async function stream(request) {
    let answer = await plainFetch(request.clone());
    if (!answer.ok) return answer;
    const encoder = new TextEncoder();

    async function pass(client) {
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const events = `${text}${part.value}`.split("\n\n");
        text = events.pop();
        for (const event of events) {
          const { msg, event_id: id } = JSON.parse(event.replace("data:", ""));
          if (msg === "close_stream") return;
          if (msg === "process_completed") count(id, -1);
          client.enqueue(encoder.encode(`${event}\n\n`));
        }
      }
      throw new Error("the server's answers ended before the last one");
    }

    async function listen(client) {
      for (;;) {
        await pass(client);
        while (![...requests.values()].includes(1)) await new Promise((done) => { wake = done; });
        answer = await plainFetch(request.clone());
        if (!answer.ok) throw new Error(`status ${answer.status}`);
      }
    }

    function start(client) {
      listen(client).catch((error) => {
        failure = error;
        client.error(error);
      });
    }
    return new Response(new ReadableStream({ start }), answer);
  }

  window.fetch = (request, options) => {
    const { pathname } = new URL(request.url ?? request, location.href);
    if (pathname.endsWith("/queue/join")) return join(request, options);
    return pathname.endsWith("/queue/data") ? stream(request) : plainFetch(request, options);
  };

  const pictures = () => document.querySelectorAll(".picture");

  window.biggan = {
    // A picture is asked for: those that are shown are old now.
    ask(times) {
      pictures().forEach((picture) => picture.classList.add("pending"));
      return times + 1;
    },
    undim: () => pictures().forEach((picture) => picture.classList.remove("pending")),

    // A tab is opened: one more entry in the browser's history, unless the browser went back to it.
    openTab(form) {
      if (form !== tabInAddress()) {
        const root = location.href.split(/[?#]/)[0];
        const query = [`form=${form}`, ...(location.search.match(/model=[^&]*/) ?? [])];
        history.pushState(history.state, "", `${root}?${query.join("&")}${location.hash}`);
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

    // Pairs are exchanged, A before B; a slider reaches a number that was typed, or it would be cut.
    // After a smaller number is typed, it is as long as at first.
    swap: (...ends) => ends.map((_, k) => ends[k ^ 1]).map((value) => (typeof value === "number"
      ? { __type__: "update", value, maximum: Math.max(100, value) } : value)),
    grow(slider, value) {
      const { max } = document.querySelector(`#${slider} input[type=range]`);
      const least = document.activeElement.type === "number" ? 100 : max;
      const maximum = Math.min(Math.max(least, Math.round(value) || 0), largest[slider]);
      return { __type__: "update", maximum };
    },

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
