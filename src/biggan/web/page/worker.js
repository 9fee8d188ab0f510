// The generator, in a thread of its own. The newest request replaces those before it.

import { download, PageError } from "./download.js";
import { pictureClasses, pictureNoise, statisticsAt } from "./model.js";

/** @import { InferenceSession, Tensor } from "onnxruntime-common" */
/** @import { Download } from "./download.js" */
/** @import { Model, Picture } from "./model.js" */

/**
 * @typedef {{kind: "load", model: Model, backend: string | null}} LoadMessage
 * @typedef {{kind: "draw", id: number, pictures: Picture[]}} DrawMessage
 *
 * @typedef {{kind: "progress", received: number, total: number}
 *   | {kind: "ready", backend: string, threads: number}
 *   | {kind: "picture", id: number, index: number, milliseconds: number, image: ImageData}
 *   | {kind: "failure", message: string}} Reply
 *
 * @typedef {(picture: Picture) => Promise<ImageData>} Draw
 */

const MAX_THREADS = 8;

/** @type {Draw | null} */
let draw = null;
/** @type {DrawMessage | null} */
let wanted = null;
let isDrawing = false;

/** @type {(reply: Reply) => void} */
const reply = (message) => postMessage(message);

addEventListener("message", ({ data }) => {
  /** @type {LoadMessage | DrawMessage} */
  const message = data;
  if (message.kind === "draw") wanted = message;
  const work = message.kind === "load" ? load(message) : drawWanted();
  work.catch((error) => reply({ kind: "failure", message: explain(error) }));
});

/** @param {LoadMessage} message */
async function load({ model, backend }) {
  const onGpu = backend !== "wasm" && (await hasGpu(backend === "webgpu"));
  try {
    draw = await start(model, onGpu ? "webgpu" : "wasm");
  } catch (error) {
    if (!onGpu || backend === "webgpu" || error instanceof PageError) throw error;
    draw = await start(model, "wasm"); // a driver may lack what its browser promises
  }
  await drawWanted();
}

/** @param {boolean} inSoftware whether an emulated GPU counts: WebAssembly is faster */
async function hasGpu(inSoftware) {
  /** @type {any} */
  const { gpu } = navigator; // TypeScript's library does not have it yet
  const adapter = await gpu?.requestAdapter();
  return Boolean(adapter && (inSoftware || !adapter.info.isFallbackAdapter));
}

/**
 * Load runtime and model.
 *
 * @param {Model} model
 * @param {"webgpu" | "wasm"} backend
 * @returns {Promise<Draw>}
 */
async function start(model, backend) {
  const { runtime, files } = model;
  const here = new URL(".", import.meta.url);
  /** @type {(name: string) => Download[]} */
  const fromRuntime = (name) => [
    { address: new URL(name, new URL(runtime.address, here)).href, ...runtime.files[name] },
  ];
  /** @type {(name: "graph" | "weights" | "statistics") => Download[]} */
  const fromModel = (name) =>
    files[name].map(({ file, ...part }) => ({ address: new URL(file, here).href, ...part }));
  const variant = backend === "webgpu" ? "asyncify." : "";
  const needed = [
    fromRuntime(`ort.${backend}.bundle.min.mjs`),
    fromRuntime(`ort-wasm-simd-threaded.${variant}wasm`),
    ...[fromModel("graph"), fromModel("weights"), fromModel("statistics")],
  ];
  const total = needed.flat().reduce((sum, file) => sum + file.bytes, 0);
  let received = 0;
  const report = (/** @type {number} */ bytes) =>
    reply({ kind: "progress", received: (received += bytes), total });
  const contents = await Promise.all(needed.map((files) => download(files, report)));
  const [script, wasm, graph, weights, statistics] = contents;

  // A script of another host is run as the bytes whose digest was checked.
  const blob = new Blob([script], { type: "text/javascript" });
  const [{ address }] = needed[0];
  const isOurs = new URL(address).origin === location.origin;
  const ort = await import(isOurs ? address : URL.createObjectURL(blob));
  const threads = crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;
  ort.env.logLevel = "error";
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: threads });
  /** @type {InferenceSession} */
  const session = await ort.InferenceSession.create(graph, {
    executionProviders: [backend],
    externalData: [{ path: "graph.onnx.data", data: weights }],
  });
  reply({ kind: "ready", backend, threads });

  const table = new Float32Array(statistics.buffer);
  const float32 = (/** @type {Float32Array} */ values, /** @type {number[]} */ ...shape) =>
    new ort.Tensor("float32", values, shape);
  const numClasses = model.classes.length;
  return async (picture) => {
    const rows = statisticsAt(table, model, picture.truncation);
    /** @type {Record<string, Tensor>} */
    const inputs = {
      z: float32(pictureNoise(picture, model.z_dim), 1, model.z_dim),
      statistics: float32(rows, 2, rows.length / 2),
    };
    if (numClasses) {
      inputs.class_weights = float32(pictureClasses(picture, numClasses), 1, numClasses);
    }
    const { images } = await session.run(inputs);
    const image = toPixels(/** @type {Float32Array} */ (images.data), model);
    images.dispose();
    return image;
  };
}

/**
 * Pixels of an image in [-1, 1], by the rule of biggan's `to_uint8`.
 *
 * @param {Float32Array} values (channels, resolution, resolution)
 * @param {Model} model
 */
function toPixels(values, { resolution, channels }) {
  if (values.some(Number.isNaN)) {
    throw new PageError(
      "The generator computes no valid pictures on this device: try ?backend=wasm in the address, " +
        "or export the model again.",
    );
  }
  const size = resolution * resolution;
  const image = new ImageData(resolution, resolution);
  image.data.fill(255);
  for (let channel = 0; channel < Math.max(3, channels); channel++) {
    const plane = values.subarray((channel % channels) * size);
    for (let i = 0; i < size; i++) image.data[4 * i + channel] = Math.floor((plane[i] + 1) * 128);
  }
  return image;
}

/** Draw the newest request, picture by picture. */
async function drawWanted() {
  if (!draw || isDrawing) return;
  isDrawing = true;
  try {
    while (wanted) {
      const request = wanted;
      for (const [index, picture] of request.pictures.entries()) {
        const started = performance.now();
        const image = await draw(picture);
        const milliseconds = performance.now() - started;
        reply({ kind: "picture", id: request.id, index, milliseconds, image });
        await new Promise((resolve) => setTimeout(resolve)); // a newer request may arrive
        if (wanted !== request) break;
      }
      if (wanted === request) wanted = null;
    }
  } finally {
    isDrawing = false;
  }
}

/** @param {unknown} error */
function explain(error) {
  if (error instanceof PageError) return error.message;
  const reason = String(error instanceof Error ? error.message : error);
  if (/memory|bad_alloc|allocation|array length/i.test(reason)) {
    return "This device has too little memory for the model: close other tabs or use a computer.";
  }
  return `The generator does not run in this browser: ${reason.slice(0, 100)}.`;
}
