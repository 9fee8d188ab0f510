// The page: controls to pictures, pictures to the screen and to files.

import { PageError } from "./download.js";
import { buildFields } from "./fields.js";
import {
  fileName,
  FORMS,
  initialValues,
  provenanceText,
  readAddress,
  writeAddress,
} from "./forms.js";
import { isModel } from "./model.js";
import { Player } from "./player.js";
import { encodePng } from "./png.js";

/** @import { Form, Sheet, Values } from "./forms.js" */
/** @import { Model } from "./model.js" */
/** @import { Reply } from "./worker.js" */

const ADDRESS_DELAY = 300; // milliseconds: browsers allow few changes of the address in a second
const SWIPE = 60; // pixels

/** @template {Element} T @param {string} selector @param {new () => T} kind @returns {T} */
function find(selector, kind) {
  const element = document.querySelector(selector);
  if (!(element instanceof kind)) throw new Error(`the page has no ${selector}`);
  return element;
}

const nav = find("nav", HTMLElement);
const main = find("main", HTMLElement); // inert without a model
const notice = find("#notice", HTMLElement);
const loading = find("#loading", HTMLElement);
const sheetBox = find("#sheet", HTMLElement);
const fieldsBox = find("#fields", HTMLElement);
const saveButton = find("#save", HTMLButtonElement);
const dialog = find("dialog", HTMLDialogElement);
const enlarged = find("dialog canvas", HTMLCanvasElement);
const player = new Player(find("#player", HTMLElement), (frame) =>
  tiles[frame]?.request ? tiles[frame].canvas : null,
);

/** @type {Model} */
let model;
/** @type {Worker} */
let worker;
/** @type {string | null} */
let backend = null; // if the address selects one
let engine = ""; // what draws
let form = FORMS[0];
/** @type {Values} */
let values = {};
/** @type {Map<Form, Values>} what a visitor finds on coming back to a form */
const remembered = new Map();
/** @type {Sheet} */
let sheet;
let request = 0; // number of the newest one
/** @typedef {{button: HTMLElement, canvas: HTMLCanvasElement, caption: HTMLElement}} Tile */
/** @type {(Tile & {request: number})[]} pictures, and the requests that they show */
let tiles = [];
let opened = 0; // the picture in the dialog
let addressTimer = 0;

start().catch((error) => fail(error instanceof PageError ? error.message : `${error}`));

async function start() {
  find("#stalled", HTMLElement).remove();
  if (!hasSimd()) {
    throw new PageError(
      "This browser has no WebAssembly SIMD, which the generator needs: " +
        "use Chrome, Edge, Firefox or Safari of 2023 or later.",
    );
  }
  const query = new URLSearchParams(location.search);
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = ({ data }) => receive(data);
  worker.onerror = () => fail(incomplete("worker.js"));
  const response = await fetch("model.json", { cache: "no-cache" }).catch(() => null);
  model = response?.ok ? await response.json().catch(() => null) : null;
  if (!isModel(model)) throw new PageError(incomplete("model.json"));
  if (hasFailed()) return; // the worker is missing
  ({ backend } = readAddress(query, model));
  worker.postMessage({ kind: "load", model, backend });
  describeModel();
  for (const each of FORMS) nav.append(link(each));
  main.inert = false;
  visit(query);
}

/** @param {string} file */
function incomplete(file) {
  return (
    `The page is incomplete: ${file} is missing, blocked or damaged; ` +
    "reload the page, or upload the file again."
  );
}

/** Whether the browser runs the instructions that onnxruntime-web is compiled to. */
function hasSimd() {
  // A function that makes a vector of zeros and counts its bits.
  const header = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0];
  const body = [10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  return typeof WebAssembly === "object" && WebAssembly.validate(Uint8Array.of(...header, ...body));
}

const hasFailed = () => document.body.classList.contains("failed");

/** @param {string | null} sentence shown until the next one; null for none */
function say(sentence) {
  if (hasFailed()) return;
  notice.textContent = sentence;
  notice.hidden = sentence === null;
}

/** @param {string} sentence shown for good */
function fail(sentence) {
  say(sentence);
  document.body.classList.add("failed");
  main.inert = nav.inert = true;
  dialog.close();
}

function describeModel() {
  const { name, resolution, classes, licence, source, sha256 } = model;
  document.title = `${name}: BigGAN in your browser`;
  find("h1", HTMLElement).textContent = name;
  const kinds = classes.length ? `, ${classes.length.toLocaleString("en")} classes` : "";
  find("#about", HTMLElement).textContent =
    `A BigGAN of ${resolution} pixels${kinds}. Every picture is generated on this device; ` +
    "nothing is sent anywhere.";
  const facts = [source, licence && `Licence: ${licence}`, `Weights ${sha256.slice(0, 12)}`];
  find("#model", HTMLElement).textContent = facts.filter(Boolean).join(" · ");
  for (const canvas of [player.screen, enlarged]) canvas.width = canvas.height = resolution;
}

// Forms

/** @param {Form} target */
function link(target) {
  const anchor = document.createElement("a");
  anchor.textContent = target.title;
  anchor.href = `?form=${target.name}`;
  anchor.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    choose(target);
  });
  return anchor;
}

/** @param {Form} chosen */
function choose(chosen) {
  if (chosen === form) return;
  remembered.set(form, values);
  history.replaceState(null, "", address());
  say(null);
  show(chosen, remembered.get(chosen) ?? initialValues(chosen, model));
  history.pushState(null, "", address());
}

const address = () => writeAddress(form, values, model, backend);

/** @param {URLSearchParams} query */
function visit(query) {
  const read = readAddress(query, model);
  say(read.fault);
  show(read.form, read.values);
}

/**
 * @param {Form} chosen
 * @param {Values} chosenValues
 */
function show(chosen, chosenValues) {
  form = chosen;
  values = { ...chosenValues };
  for (const [i, anchor] of [...nav.children].entries()) {
    anchor.ariaCurrent = FORMS[i] === form ? "page" : null;
  }
  player.root.hidden = form.name !== "interpolate";
  buildControls();
  update();
  player.restart();
}

function buildControls() {
  const change = (/** @type {string} */ key, /** @type {number | null} */ value) => {
    values[key] = value;
    say(null);
    update();
  };
  fieldsBox.replaceChildren(...buildFields(form, model.classes, values, change));
}

/** @param {(seed: number) => number} next */
function changeSeeds(next) {
  for (const { key, most } of form.fields.filter(({ key }) => key.startsWith("seed"))) {
    const box = find(`#fields [type=number][name=${key}]`, HTMLInputElement);
    box.value = `${Math.min(Math.max(next(Number(values[key])), 0), Number(most))}`;
    box.dispatchEvent(new Event("input")); // as if it were typed
  }
}

const randomSeeds = () => changeSeeds(() => Math.floor(Math.random() * 10_000));

// Pictures

/** Draw what the values say. */
function update() {
  sheet = form.plan(model, values);
  arrange();
  worker.postMessage({ kind: "draw", id: ++request, pictures: sheet.pictures });
  saveButton.disabled = true;
  document.body.removeAttribute("data-complete");
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, "", address()), ADDRESS_DELAY);
}

/** Make as many tiles as the sheet has pictures, keeping those that are there. */
function arrange() {
  if (sheetBox.dataset.form !== form.name) tiles = [];
  sheetBox.dataset.form = form.name;
  sheetBox.style.setProperty("--columns", `${sheet.columns}`);
  tiles.length = Math.min(tiles.length, sheet.pictures.length);
  while (tiles.length < sheet.pictures.length) tiles.push(buildTile(tiles.length));
  const isMixed = new Set(sheet.labels).size > 1;
  for (const [i, { button, caption }] of tiles.entries()) {
    const { truncation, start } = sheet.pictures[i];
    button.ariaLabel = `${sheet.labels[i]}, truncation ${truncation}, seed ${start.seed}`;
    caption.textContent = isMixed && form.name === "explore" ? sheet.labels[i] : "";
  }
  const headings = form.name === "sweep" ? sheet.pictures.slice(0, sheet.columns) : [];
  sheetBox.replaceChildren(
    ...headings.map(({ truncation }) => element("span", truncation.toFixed(2))),
    ...tiles.map(({ button }) => button),
  );
  player.slider.max = `${sheet.pictures.length - 1}`;
}

/** @param {number} index */
function buildTile(index) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = model.resolution;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "tile";
  const caption = element("span", "");
  button.append(canvas, caption);
  button.addEventListener("click", () =>
    form.name === "interpolate" ? player.seek(index) : enlarge(index),
  );
  return { button, canvas, caption, request: 0 };
}

/**
 * @param {string} tag
 * @param {string} text
 */
function element(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

/** @param {Reply} reply */
function receive(reply) {
  if (reply.kind === "failure") fail(reply.message);
  if (reply.kind === "progress") showProgress(reply.received, reply.total);
  if (reply.kind === "ready") {
    const threads = reply.threads === 1 ? "1 thread" : `${reply.threads} threads`;
    engine = reply.backend === "webgpu" ? "WebGPU" : `WebAssembly, ${threads}`;
  }
  if (reply.kind !== "picture") return;
  loading.hidden = true;
  const tile = tiles[reply.index];
  if (!tile || reply.image.width !== tile.canvas.width) return;
  tile.request = reply.id;
  tile.canvas.getContext("2d")?.putImageData(reply.image, 0, 0);
  tile.canvas.classList.add("drawn");
  player.paint();
  const isComplete = tiles.every((each) => each.request === request);
  saveButton.disabled = !isComplete;
  document.body.toggleAttribute("data-complete", isComplete);
  const milliseconds = Math.round(reply.milliseconds);
  find("#status", HTMLElement).textContent = `${engine}, ${milliseconds} ms a picture`;
}

/**
 * @param {number} received
 * @param {number} total
 */
function showProgress(received, total) {
  Object.assign(find("progress", HTMLProgressElement), { max: total, value: received });
  const megabytes = (/** @type {number} */ bytes) => (bytes / 1e6).toFixed(0);
  find("#loading p", HTMLElement).textContent =
    received < total
      ? `Loading the model: ${megabytes(received)} of ${megabytes(total)} MB`
      : "Starting the model";
}

/** @param {number} index */
function enlarge(index) {
  opened = index;
  const { canvas, request: shown } = tiles[index];
  const { truncation, start } = sheet.pictures[index];
  enlarged.getContext("2d")?.drawImage(canvas, 0, 0);
  const facts = [`truncation ${truncation}`, `seed ${start.seed}`, `number ${start.row}`];
  find("dialog p", HTMLElement).textContent = [sheet.labels[index], ...facts]
    .filter(Boolean)
    .join(" · ");
  find("dialog button", HTMLButtonElement).disabled = shown !== request;
  dialog.showModal();
}

// Files

/** Save the whole sheet: pictures side by side with white lines, as `make_grid` does. */
async function saveSheet() {
  const { resolution } = model;
  const { columns, pictures, provenance, name } = sheet;
  const canvas = document.createElement("canvas");
  canvas.width = columns * (resolution + 1) - 1;
  canvas.height = Math.ceil(pictures.length / columns) * (resolution + 1) - 1;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (const [i, tile] of tiles.entries()) {
    const [x, y] = [i % columns, Math.floor(i / columns)];
    context.putImageData(pixels(tile.canvas), x * (resolution + 1), y * (resolution + 1));
  }
  await save(canvas, provenance, name);
}

/** @param {number} index */
async function savePicture(index) {
  const { truncation, start } = sheet.pictures[index];
  const number = `${start.row}`.padStart(4, "0");
  const facts = [sheet.labels[index], `hub${truncation}`, `seed${start.seed}`, number];
  await save(tiles[index].canvas, sheet.each[index], fileName(model.name, ...facts));
}

/** @param {HTMLCanvasElement} canvas */
function pixels(canvas) {
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {object} provenance
 * @param {string} name
 */
async function save(canvas, provenance, name) {
  const png = await encodePng(pixels(canvas), model.channels, provenanceText(provenance));
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(png);
  anchor.download = `${name}.png`;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 60_000);
}

// Events

saveButton.addEventListener("click", saveSheet);
find("#random", HTMLButtonElement).addEventListener("click", randomSeeds);
find("dialog button", HTMLButtonElement).addEventListener("click", () => savePicture(opened));
dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
find("main form", HTMLFormElement).addEventListener("submit", (event) => event.preventDefault());
addEventListener("popstate", () => main.inert || visit(new URLSearchParams(location.search)));

addEventListener("keydown", (event) => {
  const { target } = event;
  const isIn = (/** @type {string} */ tags) => target instanceof Element && target.closest(tags);
  const isTyping = isIn("input:not([type=range]), select, dialog");
  if (main.inert || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const isPath = !player.root.hidden;
  const key = event.key.toLowerCase(); // Shift and Caps Lock do not matter
  const step = isIn("input") ? 0 : { arrowleft: -1, arrowright: 1 }[key];
  if (step && isPath) player.move(step);
  else if (step) changeSeeds((seed) => seed + step);
  else if (key === "r") randomSeeds();
  else if (key === "s" && !saveButton.disabled) saveSheet();
  else if (key === " " && isPath && !(target instanceof HTMLButtonElement)) player.toggle();
  else if (FORMS[Number(key) - 1]) choose(FORMS[Number(key) - 1]);
  else return;
  event.preventDefault();
});

let touched = { x: 0, y: 0 };
sheetBox.addEventListener("touchstart", ({ touches: [first] }) => {
  touched = { x: first.clientX, y: first.clientY };
});
sheetBox.addEventListener("touchend", ({ changedTouches: [last] }) => {
  const across = last.clientX - touched.x;
  const isSwipe = Math.abs(across) > Math.max(SWIPE, 2 * Math.abs(last.clientY - touched.y));
  if (isSwipe && player.root.hidden) changeSeeds((seed) => seed - Math.sign(across));
});
