// What the page's scripts compute, against values of Python and of the formats' definitions.

import assert from "node:assert/strict";
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
  writeAddress,
} from "../../src/biggan/web/page/forms.js";
import { pictureClasses, pictureNoise, statisticsAt } from "../../src/biggan/web/page/model.js";
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
    assert.deepEqual(read(writeAddress(form, values, MODEL)), { form, values, fault: null });
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
    ["truncation=1.01", "a number from 0.02 to 1"],
    ["truncation=NaN", "a number from 0.02 to 1"],
    ["category=4", "a class of this model"],
    ["category=poodle", "a class of this model"],
    [`category=${"x".repeat(1000)}`, `"${"x".repeat(60)}..." is not`],
  ]) {
    const { fault, values } = read(`${query}&num=3`.replace(/(num=21)&num=3/, "$1"));
    assert.ok(fault?.includes(reason), `${query}: ${fault}`);
    assert.ok(fault.length < 200);
    assert.equal(values.seed, 0);
    if (!query.startsWith("num")) assert.equal(values.num, 3);
  }
  assert.equal(read("other=1&seed=007&backend=wasm").fault, null);
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

test("a file that is cut short is fetched again, and then named", async (context) => {
  const asked = [];
  let answers = ["abc", "abcd"];
  context.mock.method(globalThis, "fetch", async (address, { cache }) => {
    asked.push(cache);
    return new Response(answers.shift());
  });
  const files = [{ address: "http://host/weights.bin", bytes: 4 }];
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
          /^The file weights.bin of the model is damaged: .* instead of 4; upload it again\.$/,
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
