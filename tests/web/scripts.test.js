// What the page's scripts compute, against values of Python and of the formats' definitions.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { inflateSync } from "node:zlib";

import { download } from "../../src/biggan/web/page/download.js";
import {
  findClass,
  FORMS,
  initialValues,
  provenanceText,
  readAddress,
  readNumber,
  writeAddress,
} from "../../src/biggan/web/page/forms.js";
import {
  isModel,
  pictureClasses,
  pictureNoise,
  statisticsAt,
} from "../../src/biggan/web/page/model.js";
import { crc32, encodePng } from "../../src/biggan/web/page/png.js";

const recorded = JSON.parse(readFileSync(new URL("recorded.json", import.meta.url), "utf-8"));

const CLASSES = ["tabby, tabby cat", "siamese cat", "golden retriever", "7"];
const MODEL = { name: "tiny", sha256: "5ha", version: "1", classes: CLASSES };
const [EXPLORE, INTERPOLATE, SWEEP] = FORMS;

const read = (query, model = MODEL) => readAddress(new URLSearchParams(query), model);

test("noise equals Python's to float32", () => {
  for (const { seed, truncation, dim, row, values } of recorded.noise) {
    const point = { class: 0, seed, row };
    const picture = { truncation, start: point, end: point, fraction: 0 };
    assert.deepEqual([...pictureNoise(picture, dim)], [...Float32Array.from(values)]);
  }
});

test("a frame of a path has Python's noise and classes", () => {
  const { seeds, truncation, steps, frame, dim, values } = recorded.path;
  const settings = { category_a: 2, category_b: 0, seed_a: seeds[0], seed_b: seeds[1] };
  const sheet = INTERPOLATE.plan(MODEL, { ...settings, truncation, steps });
  assert.equal(sheet.pictures.length, steps);
  const noise = pictureNoise(sheet.pictures[frame], dim);
  assert.deepEqual([...noise], [...Float32Array.from(values)]);
  const half = pictureClasses({ ...sheet.pictures[frame], fraction: 0.25 }, 3);
  assert.deepEqual([...half], [0.25, 0, 0.75]);
  assert.deepEqual([...pictureClasses(sheet.pictures[steps - 1], 3)], [1, 0, 0]);
});

test("statistics of a truncation equal Python's", () => {
  for (const { table, at, ...model } of recorded.statistics) {
    for (const [truncation, expected] of Object.entries(at)) {
      const found = statisticsAt(Float32Array.from(table), model, Number(truncation));
      found.forEach((value, i) => {
        const error = Math.abs(value - expected[i]);
        assert.ok(error <= 2e-5 * Math.max(1, Math.abs(expected[i])), `${truncation}: ${value}`);
      });
    }
  }
});

test("an address gives the settings that wrote it", () => {
  const settings = [
    [EXPLORE, { category: 2, truncation: 0.47, seed: 4294967295, num: 20 }],
    [EXPLORE, { category: null, truncation: 1, seed: 0, num: 1 }],
    [INTERPOLATE, initialValues(INTERPOLATE, MODEL)],
    [SWEEP, { category: 3, seed: 12, num: 5 }],
  ];
  for (const [form, values] of settings) {
    for (const backend of [null, "webgpu"]) {
      const found = read(writeAddress(form, values, MODEL, backend));
      assert.deepEqual(found, { form, values, backend, fault: null });
    }
  }
  assert.equal(
    writeAddress(EXPLORE, { ...settings[0][1] }, MODEL),
    "?form=explore&category=golden-retriever&truncation=0.47&seed=4294967295&num=20",
  );
  const plain = { ...MODEL, classes: [] };
  assert.doesNotMatch(
    writeAddress(INTERPOLATE, initialValues(INTERPOLATE, plain), plain),
    /category/,
  );
});

test("nonsense in an address is one sentence, and the rest counts", () => {
  for (const [query, reason] of [
    ["form=draw", 'there is no form "draw"'],
    ["backend=cuda", '"cuda" is not wasm or webgpu (backend)'],
    ["seed=-1", '"-1" is not a whole number from 0 to 4294967295 (seed)'],
    ["seed=1.5", "whole number"],
    ["seed=4294967296", "whole number"],
    ["seed=1e3", "whole number"],
    ["seed=", "whole number"],
    ["num=21", "from 1 to 20"],
    ["truncation=0", "a number from 0.02 to 1"],
    ["truncation=0.00001", "a number from 0.02 to 1"],
    ["truncation=1.01", "a number from 0.02 to 1"],
    ["truncation=NaN", "a number from 0.02 to 1"],
    ["category=4", "a class of this model"],
    ["category=poodle", "a class of this model"],
    [`category=${"x".repeat(1000)}`, `"${"x".repeat(60)}..." is not`],
    ["class=36", '"class" is not a setting of this form (category, truncation, seed, num)'],
    [`${"x".repeat(1000)}=1`, `"${"x".repeat(60)}..." is not a setting`],
    ["model=other", '"other" is not the model of this page'],
  ]) {
    const { fault, values } = read(`${query}&num=3`.replace(/(num=21)&num=3/, "$1"));
    assert.ok(fault?.includes(reason), `${query}: ${fault}`);
    assert.ok(fault.length < 200);
    assert.equal(values.seed, 0);
    if (!query.startsWith("num")) assert.equal(values.num, 3);
  }
  assert.equal(read("seed=007&backend=wasm&model=tiny&utm_source=a&fbclid=b").fault, null);
});

test("all that is wrong with an address is said", () => {
  const { fault, values, backend } = read(
    "form=sweep&backend=x&category=9&seed=a&num=2&class=7&q=",
  );
  assert.equal(
    fault,
    'The address is wrong: "x" is not wasm or webgpu (backend); "9" is not a class of this model; ' +
      '"a" is not a whole number from 0 to 4294967295 (seed); "class, q" is not a setting of this ' +
      "form (category, seed, num), so the defaults are shown.",
  );
  assert.deepEqual(values, { category: null, seed: 0, num: 2 });
  assert.equal(backend, null);
});

test("numbers of every form are taken from the least to the most", () => {
  for (const field of FORMS.flatMap(({ fields }) => fields).filter(({ step }) => step)) {
    const { low, most, step } = field;
    for (const value of [low, most]) assert.equal(readNumber(String(value), field), value);
    const outside = [low - step / 10, low - step, most + step, most + step / 10];
    for (const value of outside) assert.equal(readNumber(value.toFixed(9), field), null);
  }
});

test("a description of a model is complete or refused", () => {
  const part = [{ file: "a.bin", bytes: 1, integrity: "sha256-" }];
  const files = { graph: part, weights: part, statistics: part };
  const size = { resolution: 4, channels: 3, z_dim: 2 };
  const whole = { ...MODEL, ...size, grid: [], off_grid: "linear", files, runtime: {} };
  assert.ok(isModel(whole));
  for (const key of Object.keys(whole)) assert.ok(!isModel({ ...whole, [key]: undefined }), key);
  const unchecked = [{ file: "a.bin", bytes: 1 }];
  for (const name of Object.keys(files)) {
    for (const parts of [undefined, unchecked]) {
      assert.ok(!isModel({ ...whole, files: { ...files, [name]: parts } }), name);
    }
  }
  for (const other of [null, 3, [], "{}"]) assert.ok(!isModel(other));
});

test("classes are found as in Python", () => {
  for (const [text, index] of [
    ["Tabby_Cat", 0],
    ["tabby, tabby cat", 0],
    ["siamese-cat", 1],
    ["2", 2],
    ["2) golden retriever", 2],
    ["7", 3],
    ["4", null],
    ["-1", null],
    ["cat", null],
    ["", null],
  ]) {
    assert.equal(findClass(text, CLASSES), index, text);
  }
});

test("a PNG has the pixels and the provenance", async () => {
  assert.equal(crc32(Buffer.from("IEND")), 0xae426082);
  const data = Uint8Array.from([1, 2, 3, 255, 4, 5, 6, 255]);
  const text = provenanceText({ class_name: "piñata\u{1f34e}\u007f" });
  assert.equal(text, '{"class_name":"pi\\u00f1ata\\ud83c\\udf4e\\u007f"}');
  for (const [channels, raw] of [
    [1, [0, 1, 0, 4]],
    [3, [0, 1, 2, 3, 0, 4, 5, 6]],
    [4, [0, 1, 2, 3, 255, 0, 4, 5, 6, 255]],
  ]) {
    const blob = await encodePng({ width: 1, height: 2, data }, channels, text);
    const png = Buffer.from(await blob.arrayBuffer());
    const chunks = new Map();
    for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
      const body = png.subarray(at + 4, at + 8 + png.readUInt32BE(at));
      assert.equal(png.readUInt32BE(at + 4 + body.length), crc32(body));
      chunks.set(body.toString("latin1", 0, 4), body.subarray(4));
    }
    assert.deepEqual([...chunks.keys()], ["IHDR", "tEXt", "IDAT", "IEND"]);
    assert.equal(chunks.get("tEXt").toString("latin1"), `biggan\0${text}`);
    assert.deepEqual([...inflateSync(chunks.get("IDAT"))], raw);
  }
});

const integrity = (text, algorithm = "sha256") =>
  `${algorithm}-${createHash(algorithm).update(text).digest("base64")}`;

test("a file with other contents is fetched again, and then named", async (context) => {
  let answers = [];
  context.mock.method(globalThis, "fetch", async () => new Response(answers.shift()));
  const address = "http://host/weights.bin";
  for (const algorithm of ["sha256", "sha384"]) {
    answers = ["abxd", "abcd"];
    const files = [{ address, bytes: 4, integrity: integrity("abcd", algorithm) }];
    const contents = await download(files, () => {});
    assert.equal(Buffer.from(contents).toString(), "abcd");
    answers = ["abxd", "abxd"];
    await assert.rejects(
      download(files, () => {}),
      {
        message: "The file weights.bin is damaged: its contents have changed; upload it again.",
      },
    );
  }
});

test("a file that is cut short is fetched again, and then named", async (context) => {
  const asked = [];
  let answers = ["abc", "abcd"];
  context.mock.method(globalThis, "fetch", async (address, { cache }) => {
    asked.push(cache);
    return new Response(answers.shift());
  });
  const files = [{ address: "http://host/weights.bin", bytes: 4, integrity: integrity("abcd") }];
  let received = 0;
  const contents = await download(files, (bytes) => (received += bytes));
  assert.equal(Buffer.from(contents).toString(), "abcd");
  assert.deepEqual(asked, ["force-cache", "reload"]);
  for (answers of [
    ["abc", "abc"],
    ["abcde", "abcdefgh"],
  ]) {
    await assert.rejects(
      download(files, () => {}),
      {
        message:
          /^The file weights.bin is damaged: it has \d bytes instead of 4; upload it again\.$/,
      },
    );
  }
  context.mock.method(globalThis, "fetch", async (_, { cache }) =>
    cache === "reload" ? new Response("abcd") : new Response("", { status: 404 }),
  );
  assert.equal((await download(files, () => {})).length, 4); // a 404 of the cache does not stay
  context.mock.method(globalThis, "fetch", async () => new Response("", { status: 404 }));
  await assert.rejects(
    download(files, () => {}),
    { message: /weights.bin .* \(status 404\); / },
  );
  context.mock.method(globalThis, "fetch", () => Promise.reject(new TypeError("blocked")));
  await assert.rejects(
    download(files, () => {}),
    { message: /cannot be loaded \(blocked/ },
  );
});
