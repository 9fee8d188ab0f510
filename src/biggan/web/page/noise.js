// The noise of biggan's latents.py: a seed gives the same values as in Python, to float32.

const TAIL = 0.022750131948179195; // probability of a normal value below -2

/**
 * `biggan.truncated_noise`: `truncation` times a normal distribution cut at plus and minus 2.
 *
 * @param {number} rows
 * @param {number} dim width of the noise
 * @param {number} truncation in (0, 1]
 * @param {number} seed 0 to 2**32 - 1
 * @returns {Float64Array} rows * dim values, row by row
 */
export function truncatedNoise(rows, dim, truncation, seed) {
  const uniform = uniforms(rows * dim, seed);
  return uniform.map((u) => truncation * inverseNormal(TAIL + u * (1 - 2 * TAIL)));
}

/**
 * `numpy.random.RandomState(seed).uniform(size=count)`: the Mersenne Twister MT19937.
 *
 * @param {number} count
 * @param {number} seed
 */
export function uniforms(count, seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    const last = state[i - 1];
    state[i] = Math.imul(1812433253, last ^ (last >>> 30)) + i;
  }
  let position = 624;
  const next = () => {
    if (position === 624) {
      twist(state);
      position = 0;
    }
    let y = state[position++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const high = next() >>> 5;
    const low = next() >>> 6;
    values[i] = (high * 2 ** 26 + low) / 2 ** 53;
  }
  return values;
}

/** @param {Uint32Array} state */
function twist(state) {
  for (let i = 0; i < 624; i++) {
    const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
    state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
  }
}

/**
 * The inverse of the normal distribution function, to 1e-15: Wichura 1988, algorithm AS241.
 *
 * @param {number} p in [1e-11, 1 - 1e-11]; farther out the algorithm has other coefficients
 */
function inverseNormal(p) {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) return q * ratio(CENTRAL, 0.180625 - q * q);
  const x = ratio(OUTER, Math.sqrt(-Math.log(q < 0 ? p : 1 - p)) - 1.6);
  return q < 0 ? -x : x;
}

/**
 * @param {number[][]} polynomials numerator and denominator, the highest power first
 * @param {number} x
 */
function ratio([numerator, denominator], x) {
  const value = (/** @type {number[]} */ c) => c.reduce((sum, next) => sum * x + next, 0);
  return value(numerator) / value(denominator);
}

// prettier-ignore
const CENTRAL = [
  [2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
    13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608],
  [5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
    5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1],
];
// prettier-ignore
const OUTER = [
  [7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
    1.27045825245236838258, 3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959,
    1.42343711074968357734],
  [1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966,
    0.14810397642748007459, 0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187,
    1],
];
