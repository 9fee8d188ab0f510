// PNG files with provenance in a text chunk, as biggan's images.py writes them.

/**
 * @param {ImageData} image
 * @param {number} channels kept: 1 grey, 3 RGB, 4 RGBA
 * @param {string} provenance JSON, ASCII
 * @returns {Promise<Blob>}
 */
export async function encodePng({ width, height, data }, channels, provenance) {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, /** @type {Record<number, number>} */ ({ 1: 0, 3: 2, 4: 6 })[channels]], 8);
  const rows = new Uint8Array(height * (1 + width * channels)); // each begins with its filter, 0
  let position = 0;
  for (let pixel = 0; pixel < width * height; pixel++) {
    if (pixel % width === 0) position++;
    for (let c = 0; c < channels; c++) rows[position++] = data[4 * pixel + c];
  }
  return new Blob(
    [
      Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
      chunk("IHDR", header),
      chunk("tEXt", ascii(`biggan\0${provenance}`)),
      chunk("IDAT", await deflate(rows)),
      chunk("IEND", new Uint8Array()),
    ],
    { type: "image/png" },
  );
}

/** @param {Uint8Array<ArrayBuffer>} contents */
async function deflate(contents) {
  const stream = new Blob([contents]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * @param {string} type
 * @param {Uint8Array} contents
 */
function chunk(type, contents) {
  const bytes = new Uint8Array(12 + contents.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, contents.length);
  bytes.set(ascii(type), 4);
  bytes.set(contents, 8);
  view.setUint32(8 + contents.length, crc32(bytes.subarray(4, 8 + contents.length)));
  return bytes;
}

/** @param {Uint8Array} bytes */
export function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** @param {string} text */
function ascii(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
