// Files of the model and the runtime, with progress.

/**
 * @typedef {object} Download
 * @property {string} address
 * @property {number} bytes
 * @property {string} integrity digest as browsers write it: `sha256-` and base64
 */

/** What is wrong, as one sentence for the visitor. */
export class PageError extends Error {}

/**
 * Download files into one array.
 *
 * Their names change with their contents, so a copy in the browser's cache is as good as new.
 *
 * @param {Download[]} files
 * @param {(bytes: number) => void} report called with the bytes received since the last call
 */
export async function download(files, report) {
  const contents = new Uint8Array(files.reduce((sum, file) => sum + file.bytes, 0));
  let start = 0;
  const parts = files.map((file) => {
    const part = contents.subarray(start, (start += file.bytes));
    return fill(part, file, report);
  });
  await Promise.all(parts);
  return contents;
}

/**
 * @param {Uint8Array<ArrayBuffer>} part
 * @param {Download} file
 * @param {(bytes: number) => void} report
 */
async function fill(part, file, report) {
  try {
    await receive(part, file, report, "force-cache");
  } catch {
    await receive(part, file, () => {}, "reload"); // what the cache holds may be damaged
  }
}

/**
 * Without HTTPS browsers offer no digests, but `fetch` compares one. It does so only at the end of a
 * file, so there is no progress within it.
 *
 * @param {Uint8Array<ArrayBuffer>} part
 * @param {Download} file
 * @param {(bytes: number) => void} report
 * @param {RequestCache} cache
 */
async function receive(part, { address, bytes, integrity }, report, cache) {
  const name = new URL(address).pathname.split("/").pop();
  const { subtle } = crypto;
  let received = 0;
  let status = "blocked, damaged or no connection";
  try {
    const response = await fetch(address, { cache, integrity: subtle ? "" : integrity });
    if (!response.ok) status = `status ${response.status}`;
    if (!response.ok || !response.body) throw new Error(status);
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      received += value.length;
      if (received > bytes) await reader.cancel();
      else part.set(value, received - value.length);
      report(value.length);
    }
  } catch {
    throw new PageError(
      `The file ${name} cannot be loaded (${status}); reload the page, or upload the file again.`,
    );
  }
  if (received !== bytes) {
    const [has, needs] = [received, bytes].map((number) => number.toLocaleString("en"));
    throw new PageError(
      `The file ${name} is damaged: it has ${has} bytes instead of ${needs}; upload it again.`,
    );
  }
  if (subtle && !(await hasDigest(part, integrity))) {
    throw new PageError(`The file ${name} is damaged: its contents have changed; upload it again.`);
  }
}

/**
 * @param {Uint8Array<ArrayBuffer>} contents
 * @param {string} integrity
 */
async function hasDigest(contents, integrity) {
  const [algorithm, expected] = integrity.split("-");
  const digest = await crypto.subtle.digest(algorithm.replace("sha", "SHA-"), contents);
  return btoa(String.fromCharCode(...new Uint8Array(digest))) === expected;
}
