// The three forms: their fields, their addresses, and the sheet of pictures that they describe.
// Names are those of biggan's demo, so its addresses work here.

/** @import { Model, Picture, Point } from "./model.js" */

/**
 * @typedef {object} Field
 * @property {string} key in addresses
 * @property {string} label
 * @property {number} [low]
 * @property {number} [high] end of the slider
 * @property {number} [most] the largest value
 * @property {number} [step] absent for classes
 * @property {number | null} initial a class, null for all classes in turn
 * @property {boolean} [all] whether a class may be null
 *
 * @typedef {Record<string, number | null>} Values by key
 *
 * @typedef {object} Sheet
 * @property {Picture[]} pictures row by row
 * @property {number} columns
 * @property {object} provenance of the whole sheet, as biggan's provenance.py defines it
 * @property {object[]} each provenance of each picture; empty for a path
 * @property {string[]} labels one per picture
 * @property {string} name of a file, without its ending
 *
 * @typedef {object} Form
 * @property {string} name in addresses
 * @property {string} title
 * @property {Field[]} fields
 * @property {(model: Model, values: Values) => Sheet} plan
 */

const MAX_SEED = 2 ** 32 - 1;
const SWEPT = [1, 0.8, 0.6, 0.4, 0.2, 0.02];
const COLUMNS = 5;
const BACKENDS = ["wasm", "webgpu"];
const TRACKING = /^utm_|clid$/; // what social networks append to addresses

/**
 * @type {(key: string, label: string, low: number, high: number, step: number, initial: number,
 *   most?: number) => Field}
 */
const number = (key, label, low, high, step, initial, most = high) => {
  return { key, label, low, high, step, initial, most };
};
const CATEGORY = { key: "category", label: "Class", initial: null, all: true };
const TRUNCATION = number("truncation", "Truncation", 0.02, 1, 0.02, 0.4);
const SEED = number("seed", "Seed", 0, 100, 1, 0, MAX_SEED);

/** @type {Form[]} */
export const FORMS = [
  {
    name: "explore",
    title: "Explore",
    fields: [CATEGORY, TRUNCATION, SEED, number("num", "Pictures", 1, 20, 1, 10)],
    plan: (model, { category, truncation, seed, num }) =>
      grid(model, category, Number(num), [Number(truncation)], Number(seed)),
  },
  {
    name: "interpolate",
    title: "Interpolate",
    fields: [
      { key: "category_a", label: "From", initial: 0 },
      { ...SEED, key: "seed_a" },
      { key: "category_b", label: "To", initial: -1 },
      { ...SEED, key: "seed_b", initial: 1 },
      TRUNCATION,
      number("steps", "Frames", 2, 120, 1, 40),
    ],
    plan: path,
  },
  {
    name: "sweep",
    title: "Truncation sweep",
    fields: [CATEGORY, SEED, number("num", "Rows", 1, 5, 1, 3)],
    plan: (model, { category, seed, num }) =>
      grid(model, category, Number(num), SWEPT, Number(seed)),
  },
];

/**
 * Pictures of a class, or of all in turn: five a row, or one row each with several truncations.
 *
 * @param {Model} model
 * @param {number | null} category
 * @param {number} num
 * @param {number[]} truncations
 * @param {number} seed
 * @returns {Sheet}
 */
function grid(model, category, num, truncations, seed) {
  const pictures = [];
  const each = [];
  const labels = [];
  for (let row = 0; row < num; row++) {
    const index = model.classes.length ? (category ?? row % model.classes.length) : null;
    const class_name = index === null ? null : model.classes[index];
    const point = { class: index, seed, row };
    for (const truncation of truncations) {
      pictures.push({ truncation, start: point, end: point, fraction: 0 });
      const { name, sha256, version } = model;
      const made = { truncation, noise: "hub", seed, index: row, version };
      each.push({ model: name, sha256, class_index: index, class_name, ...made });
      labels.push(class_name === null ? "" : shortName(class_name));
    }
  }
  const swept = truncations.length > 1;
  const columns = swept ? truncations.length : Math.min(num, COLUMNS);
  const cut = swept ? "hub-sweep" : `hub${truncations[0]}`;
  const shown = new Set(labels).size === 1 ? labels[0] : "";
  const name = fileName(model.name, shown, cut, `seed${seed}`, `${num}`);
  return { pictures, columns, provenance: { columns, pictures: each }, each, labels, name };
}

/**
 * @param {Model} model
 * @param {Values} values
 * @returns {Sheet}
 */
function path(model, values) {
  const truncation = Number(values.truncation);
  const steps = Number(values.steps);
  const end = (/** @type {"a" | "b"} */ side) => ({
    class: model.classes.length ? values[`category_${side}`] : null,
    seed: Number(values[`seed_${side}`]),
    row: 0,
  });
  const [a, b] = [end("a"), end("b")];
  const nameOf = (/** @type {Point} */ point) =>
    point.class === null ? null : model.classes[point.class];
  const fractions = Array.from({ length: steps }, (_, i) =>
    i === steps - 1 ? 1 : i * (1 / (steps - 1)),
  );
  const ends = [a, b].map((point) => shortName(nameOf(point) ?? "")).filter(Boolean);
  const settings = [`hub${truncation}`, `seeds${a.seed}-${b.seed}`, `1x${steps}`];
  return {
    pictures: fractions.map((fraction) => ({ truncation, start: a, end: b, fraction })),
    columns: steps,
    provenance: {
      model: model.name,
      sha256: model.sha256,
      class_a: a.class,
      class_a_name: nameOf(a),
      class_b: b.class,
      class_b_name: nameOf(b),
      steps,
      num: 1,
      truncation,
      noise: "hub",
      seed_a: a.seed,
      seed_b: b.seed,
      path: "linear",
      version: model.version,
    },
    each: [],
    labels: fractions.map((fraction) => `${Math.round(100 * fraction)}% of the way`),
    name: fileName(model.name, ends.join("-to-"), ...settings),
  };
}

/** @param {string} name the first of a class's synonyms */
export function shortName(name) {
  return name.split(", ")[0].replaceAll(/[_-]/g, " ");
}

/** @param {string[]} parts */
export function fileName(...parts) {
  const plain = parts.map((part) => part.replaceAll(/[^A-Za-z0-9.]+/g, "-").slice(0, 60));
  return plain
    .map((part) => part.replaceAll(/^[-.]+|[-.]+$/g, ""))
    .filter(Boolean)
    .join("-");
}

/**
 * Provenance as ASCII JSON, as Python writes it.
 *
 * @param {object} provenance
 */
export function provenanceText(provenance) {
  const escape = (/** @type {string} */ c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return JSON.stringify(provenance).replaceAll(/[\u007f-\uffff]/g, escape);
}

/**
 * @param {Form} form
 * @param {Model} model
 * @returns {Values}
 */
export function initialValues(form, model) {
  const last = model.classes.length - 1;
  return Object.fromEntries(
    form.fields.map(({ key, initial }) => [key, initial === -1 ? last : initial]),
  );
}

/**
 * Read an address. What it leaves out has its default, and so has what it gets wrong.
 *
 * @param {URLSearchParams} query
 * @param {Model} model
 * @returns {{form: Form, values: Values, backend: string | null, fault: string | null}}
 */
export function readAddress(query, model) {
  const named = query.get("form") ?? FORMS[0].name;
  const form = FORMS.find(({ name }) => name === named) ?? FORMS[0];
  const values = initialValues(form, model);
  const faults = [];
  if (form.name !== named) faults.push(`there is no form ${quoted(named)}`);
  let backend = query.get("backend");
  if (backend !== null && !BACKENDS.includes(backend)) {
    faults.push(`${quoted(backend)} is not wasm or webgpu (backend)`);
    backend = null;
  }
  const wanted = query.get("model") ?? model.name;
  if (wanted !== model.name) faults.push(`${quoted(wanted)} is not the model of this page`);
  for (const field of form.fields) {
    const text = query.get(field.key);
    if (text === null) continue;
    const value = field.step ? readNumber(text, field) : findClass(text, model.classes);
    if (value === null) faults.push(`${quoted(text)} is not ${describe(field)}`);
    else values[field.key] = value;
  }
  const keys = form.fields.map(({ key }) => key);
  const known = ["form", "backend", "model", ...keys];
  const unknown = [...query.keys()].filter((key) => !known.includes(key) && !TRACKING.test(key));
  if (unknown.length && form.name === named) {
    faults.push(`${quoted(unknown.join(", "))} is not a setting of this form (${keys.join(", ")})`);
  }
  const remedy = faults.length > 1 ? "the defaults are shown" : "the default is shown";
  const fault = faults.length ? `The address is wrong: ${faults.join("; ")}, so ${remedy}.` : null;
  return { form, values, backend, fault };
}

/** The values of a field. @param {Field} field */
export function describe({ step, label, low, most }) {
  if (!step) return "a class of this model";
  const kind = step >= 1 ? "a whole number" : "a number";
  return `${kind} from ${low} to ${most} (${label.toLowerCase()})`;
}

/**
 * @param {string} text
 * @param {Field} field
 */
export function readNumber(text, { low, most, step }) {
  const value = /^[\d.]+$/.test(text) ? Number(text) : NaN;
  const isWhole = Number.isInteger(value) || Number(step) < 1;
  return isWhole && value >= Number(low) && value <= Number(most) ? value : null;
}

/**
 * A class by name, by one of its synonyms or by its index ("207", "207) golden retriever").
 *
 * @param {string} text
 * @param {string[]} classes
 */
export function findClass(text, classes) {
  const normal = (/** @type {string} */ name) =>
    name
      .toLowerCase()
      .trim()
      .replaceAll(/[\s_-]+/g, " ");
  const wanted = normal(text);
  const isCalled = (/** @type {string} */ name) =>
    normal(name) === wanted || name.split(", ").some((synonym) => normal(synonym) === wanted);
  const found = classes.flatMap((name, index) => (isCalled(name) ? [index] : []));
  if (found.length === 1) return found[0];
  const index = Number(/^(\d{1,9})(\).*)?$/.exec(text.trim())?.[1] ?? NaN);
  return index < classes.length ? index : null;
}

/**
 * The address that shows a form with these values.
 *
 * @param {Form} form
 * @param {Values} values
 * @param {Model} model
 * @param {string | null} backend
 */
export function writeAddress(form, values, model, backend) {
  const query = new URLSearchParams({ form: form.name });
  for (const { key, step } of form.fields) {
    const value = values[key];
    if (value === null || (!step && model.classes.length === 0)) continue;
    const slug = step ? "" : shortName(model.classes[value]).replaceAll(" ", "-");
    query.set(key, slug && findClass(slug, model.classes) === value ? slug : String(value));
  }
  if (backend) query.set("backend", backend);
  return `?${query}`;
}

/** @param {string} text a visitor's, as a message repeats it */
function quoted(text) {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}...` : text);
}
