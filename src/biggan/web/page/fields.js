// The controls of a form.

import { describe, readNumber, shortName } from "./forms.js";

/** @import { Field, Form, Values } from "./forms.js" */

/**
 * @param {Form} form
 * @param {string[]} classes of the model
 * @param {Values} values
 * @param {(key: string, value: number | null) => void} change called with each valid input
 */
export function buildFields(form, classes, values, change) {
  const fields = form.fields.filter(({ step }) => step !== undefined || classes.length > 0);
  return fields.map((field) => {
    const label = document.createElement("label");
    const name = document.createElement("span");
    name.textContent = field.label;
    const value = values[field.key];
    const set = (/** @type {number | null} */ next) => change(field.key, next);
    const controls = field.step
      ? numberControls(field, Number(value), set)
      : [classControl(field, classes, value, set)];
    label.append(name, ...controls);
    return label;
  });
}

/**
 * @param {Field} field
 * @param {string[]} classes
 * @param {number | null} value
 * @param {(value: number | null) => void} set
 */
function classControl({ key, all }, classes, value, set) {
  const select = document.createElement("select");
  select.name = key;
  if (all) select.add(new Option("All in turn", ""));
  for (const [index, name] of classes.entries())
    select.add(new Option(shortName(name), `${index}`));
  select.value = `${value ?? ""}`;
  select.addEventListener("input", () => set(select.value ? Number(select.value) : null));
  return select;
}

/**
 * A box for any value of the range, and a slider.
 *
 * @param {Field} field
 * @param {number} value
 * @param {(value: number) => void} set
 */
function numberControls(field, value, set) {
  const { key, low, high, most, step, label } = field;
  const [box, slider] = ["number", "range"].map((type) => {
    const input = document.createElement("input");
    const max = type === "range" ? high : most;
    Object.assign(input, { type, name: key, min: low, max, step, value });
    input.ariaLabel = label;
    return input;
  });
  if (Number(step) < 1) box.step = "any";
  slider.addEventListener("input", () => {
    box.value = slider.value;
    set(Number(slider.value));
  });
  box.addEventListener("input", () => {
    const typed = readNumber(box.value, field);
    box.setCustomValidity(typed === null ? `This must be ${describe(field)}.` : "");
    if (typed === null) return;
    slider.value = box.value;
    set(typed);
  });
  box.addEventListener("change", () => box.reportValidity());
  return [box, slider];
}
