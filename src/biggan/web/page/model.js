// The model as model.json describes it, and the inputs of its network.

import { truncatedNoise } from "./noise.js";

/**
 * @typedef {{file: string, bytes: number, integrity: string}} Part
 *
 * @typedef {object} Model
 * @property {string} version of biggan
 * @property {string} name
 * @property {string} sha256 of the weights
 * @property {string} source
 * @property {string} licence
 * @property {string[]} classes empty if unconditional
 * @property {number} resolution
 * @property {number} channels of an image: 1, 3 or 4
 * @property {number} z_dim
 * @property {number[]} grid truncations of the recorded statistics, ascending
 * @property {"linear" | "hub"} off_grid
 * @property {string} precision of the stored weights
 * @property {{graph: Part[], weights: Part[], statistics: Part[]}} files
 * @property {{version: string, address: string,
 *   files: Record<string, {bytes: number, integrity: string}>}} runtime
 *
 * @typedef {{class: number | null, seed: number, row: number}} Point an end of a path
 *
 * @typedef {object} Picture a place on the path from `start` to `end`
 * @property {number} truncation
 * @property {Point} start
 * @property {Point} end
 * @property {number} fraction 0 for `start`, 1 for `end`
 */

const FACTS = [
  "version",
  "name",
  "sha256",
  "classes",
  "resolution",
  "channels",
  "z_dim",
  "grid",
  "off_grid",
  "runtime",
];
const PARTS = ["graph", "weights", "statistics"];

/**
 * Whether model.json has what the page needs; one of another version may not.
 *
 * @param {any} model
 */
export function isModel(model) {
  const parts = PARTS.flatMap((name) => model?.files?.[name] ?? [{}]);
  return (
    FACTS.every((key) => model?.[key] !== undefined) && parts.every(({ integrity }) => integrity)
  );
}

/**
 * The noise of a picture, (z_dim,).
 *
 * @param {Picture} picture
 * @param {number} dim
 */
export function pictureNoise({ truncation, start, end, fraction }, dim) {
  const row = (/** @type {Point} */ point) =>
    truncatedNoise(point.row + 1, dim, truncation, point.seed).subarray(point.row * dim);
  const a = row(start);
  if (fraction === 0) return Float32Array.from(a);
  const b = row(end);
  return Float32Array.from(a, (value, i) => value * (1 - fraction) + b[i] * fraction);
}

/**
 * The weight of each class in a picture.
 *
 * @param {Picture} picture
 * @param {number} numClasses
 */
export function pictureClasses({ start, end, fraction }, numClasses) {
  const weights = new Float64Array(numClasses);
  weights[start.class ?? 0] += 1 - fraction;
  weights[end.class ?? 0] += fraction;
  return Float32Array.from(weights);
}

/**
 * The statistics with which to sample at a truncation: `StandingBatchNorm2d.statistics`.
 *
 * @param {Float32Array} table a row for each truncation of the grid, then one for untruncated noise
 * @param {Pick<Model, "grid" | "off_grid">} model
 * @param {number} truncation
 */
export function statisticsAt(table, { grid, off_grid }, truncation) {
  const width = table.length / (grid.length + 1);
  const rowOf = (/** @type {number} */ row) => table.subarray(row * width, (row + 1) * width);
  if (grid.length === 0) return rowOf(0);
  let [row, weight] = locate(truncation, grid);
  if (weight === 0) return rowOf(row);
  if (off_grid === "hub") [row, weight] = hubWeight(truncation, grid);
  const next = rowOf(row + 1);
  return rowOf(row).map((value, i) => value + weight * (next[i] - value));
}

/**
 * `locate_on_grid`: the row at or below a truncation, and the weight of the next one.
 *
 * @param {number} truncation
 * @param {number[]} grid
 */
function locate(truncation, grid) {
  const exact = grid.findIndex((value) => Math.abs(value - truncation) < 1e-6);
  if (exact >= 0) return [exact, 0];
  const right = grid.findIndex((value) => value > truncation);
  if (right === 0) return [0, 0];
  if (right < 0) return [grid.length - 1, 0];
  const left = right - 1;
  return [left, (truncation - grid[left]) / (grid[right] - grid[left])];
}

/**
 * `hub_weight`: where the ports of DeepMind's graphs look between two rows.
 *
 * @param {number} truncation
 * @param {number[]} grid
 */
function hubWeight(truncation, grid) {
  const step = grid[1] - grid[0];
  if (grid[0] === 0) {
    const row = Math.floor(truncation / step);
    return [row, 1 - (truncation / step - row)];
  }
  const row = roundToEven((truncation - step) / step);
  const weight = 1 - Number(((truncation - row * step) / step).toFixed(2));
  const last = grid.length - 2;
  return row <= last ? [row, weight] : [last, weight + row - last];
}

/** @param {number} x rounded as Python rounds */
function roundToEven(x) {
  const floor = Math.floor(x);
  return x - floor === 0.5 ? floor + (floor % 2) : Math.round(x);
}
