// A field that finds one of a model's classes. Gradio runs this once for each field, with
// `element`, `props`, `trigger` and `watch`; the server searches.
const field = () => element.querySelector("input");
const list = () => element.querySelector("ul");
const name = () => field().id.replace("-field", "");
const model = () => document.querySelector("[data-model-shown]").dataset.modelShown;
let active = -1;  // the marked entry
let searches = 0;  // only the newest one is shown
let newest = null;  // until it has ended
let timer = null;  // while typing
let isEntered = false;  // Enter waits for a search; leaving the field does not end it

const options = () => [...list().children].filter((entry) => entry.dataset.entry);

function mark(index) {
  const entries = options();
  active = -1;
  if (!entries.length) return;
  active = (index + entries.length) % entries.length;
  entries.forEach((entry, k) => entry.setAttribute("aria-selected", k === active));
  field().setAttribute("aria-activedescendant", entries[active].id);
  entries[active].scrollIntoView({ block: "nearest" });
}

function stopTimer() {
  clearTimeout(timer);
  timer = null;
}

function close() {
  stopTimer();
  searches += 1;
  list().hidden = true;
  field().setAttribute("aria-expanded", false);
}

function say(text) {
  element.querySelector("[role=status]").textContent = text;
}

function show() {
  field().value = props.value ?? "";
  close();
}

function add(text, data = {}) {
  const entry = document.createElement("li");
  entry.textContent = text;
  entry.id = `${name()}-${list().children.length}`;
  entry.role = "option";
  Object.assign(entry.dataset, data);
  list().append(entry);
}

// The search that is to be shown, begun at once if it waits for more letters; null if there is none.
const pending = () => (timer === null ? newest : search(field().value.trim()));

function search(text) {
  stopTimer();
  const found = find(text).finally(() => {
    if (newest === found) newest = null;
  });
  newest = found;
  return found;
}

// Show what is found; false if a newer search has begun meanwhile.
async function find(text) {
  const number = ++searches;
  const query = new URLSearchParams({ model: model(), search: text });
  const { classes = [], other, detail } = await fetch(`api/classes/find?${query}`)
    .then((answer) => answer.json())
    .catch(() => ({ detail: "The server does not answer." }));
  if (number !== searches) return false;
  list().replaceChildren();
  for (const entry of other?.classes ?? []) {
    add(`${entry} is a class of ${other.model}: choose that model`, { entry, model: other.model });
  }
  for (const entry of classes) add(entry, { entry });
  if (!list().children.length) add(detail ?? `No class is called ${text}.`);
  list().hidden = false;
  field().setAttribute("aria-expanded", true);
  mark(0);
  return true;
}

function leave() {
  const text = field().value;
  if (list().hidden && text === (props.value ?? "")) return;
  if (text !== (props.value ?? "") && text.trim()) {
    say(`“${text}” was not chosen from the list; it is still ${props.value}.`);
  }
  show();
}

function choose(entry) {
  if (entry.dataset.model) {
    show();
    window.biggan.wanted = { ...entry.dataset, field: name(), time: Date.now() };
    trigger("select");
    return;
  }
  props.value = entry.dataset.entry;
  say("");
  show();
}

element.addEventListener("focusin", (event) => {
  if (event.target !== field()) return;
  field().select();
  search("");
});
element.addEventListener("input", () => {
  stopTimer();
  timer = setTimeout(() => search(field().value.trim()), 120);
});
element.addEventListener("keydown", async (event) => {
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    event.preventDefault();
    const found = pending();
    if (found === null && list().hidden) await search("");
    else if ((await found) !== false) mark(active + (event.key === "ArrowDown" ? 1 : -1));
  } else if (event.key === "Enter") {
    event.preventDefault();
    const found = pending();
    if (list().hidden && found === null) return;
    isEntered = true;
    const isShown = await found;
    isEntered = false;
    if (isShown !== false && options()[active]) choose(options()[active]);
    else if (document.activeElement !== field()) leave();
  } else if (event.key === "Escape") {
    show();
  }
});
element.addEventListener("mousedown", (event) => {
  const entry = event.target.closest("li");
  if (!entry) return;
  event.preventDefault();  // the field keeps the focus
  if (entry.dataset.entry) choose(entry);
});
element.addEventListener("focusout", () => {
  if (!isEntered) leave();
});
watch("value", () => {
  say("");
  show();
});
show();
