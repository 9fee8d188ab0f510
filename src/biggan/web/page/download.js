// Files of the model and the runtime, with progress.

/**
 * @typedef {object} Download
 * @property {string} address
 * @property {number} bytes
 * @property {string | null} [integrity] digest, checked by the browser
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
 * @param {Uint8Array} part
 * @param {Download} file
 * @param {(bytes: number) => void} report
 */
async function fill(part, file, report) {
  if ((await receive(part, file, report, "force-cache")) === file.bytes) return;
  const received = await receive(part, file, () => {}, "reload"); // the cached copy may be damaged
  if (received === file.bytes) return;
  const name = new URL(file.address).pathname.split("/").pop();
  throw new PageError(
    `The file ${name} of the model is damaged: it has ${received.toLocaleString("en")} bytes ` +
      `instead of ${file.bytes.toLocaleString("en")}; upload it again.`,
  );
}

/**
 * @param {Uint8Array} part
 * @param {Download} file
 * @param {(bytes: number) => void} report
 * @param {RequestCache} cache
 * @returns {Promise<number>} the bytes received, at most one more than fit
 */
async function receive(part, { address, integrity }, report, cache) {
  const name = new URL(address).pathname.split("/").pop();
  let received = 0;
  try {
    const response = await fetch(address, { cache, integrity: integrity ?? "" });
    if (!response.ok || !response.body) throw new PageError(cannot(name, `${response.status}`));
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return received;
      if (received + value.length > part.length) {
        await reader.cancel();
        return received + value.length;
      }
      part.set(value, received);
      received += value.length;
      report(value.length);
    }
  } catch (error) {
    if (error instanceof PageError) throw error;
    throw new PageError(cannot(name, "blocked, changed or no connection"));
  }
}

/**
 * @param {string | undefined} name
 * @param {string} reason
 */
function cannot(name, reason) {
  return `The file ${name} cannot be loaded (${reason}); reload the page to try again.`;
}
