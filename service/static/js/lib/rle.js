/** COCO's uncompressed run lengths to pixels, and pixels to outlines. Pure: no DOM. */

/**
 * @param {{size: [number, number], counts: number[]}} rle size is [height, width]; runs are column-major, zeros first
 * @returns {{width: number, height: number, data: Uint8Array}} data row-major, 1 is product
 */
export function decodeRle(rle) {
  const [height, width] = rle.size;
  const data = new Uint8Array(width * height);
  let at = 0;
  let value = 0;
  for (const run of rle.counts) {
    if (value) {
      for (let i = at, end = at + run; i < end; i++) data[(i % height) * width + Math.floor(i / height)] = 1;
    }
    at += run;
    value ^= 1;
  }
  if (at !== width * height) throw new RangeError(`run lengths add up to ${at}, expected ${width * height}`);
  return { width, height, data };
}

// Directions in screen order: east, south, west, north.
const STEP_X = [1, 0, -1, 0];
const STEP_Y = [0, 1, 0, -1];
// The pixels ahead of a corner, left and right of the way, relative to the corner.
const LEFT = [
  [0, -1],
  [0, 0],
  [-1, 0],
  [-1, -1],
];
const RIGHT = [
  [0, 0],
  [-1, 0],
  [-1, -1],
  [0, -1],
];

/**
 * Closed outlines along the cracks between pixels, product on the right: outer ones run clockwise on the screen, holes
 * the other way. Points are middles of pixel edges, so that a diagonal is a diagonal and no staircase.
 *
 * @param {{width: number, height: number, data: Uint8Array}} mask
 * @returns {Float32Array[]} x, y, x, y ... of each outline
 */
export function traceOutlines({ width, height, data }) {
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] === 1;
  const seen = new Uint8Array(width * height);
  const loops = [];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!data[y * width + x] || (y > 0 && data[(y - 1) * width + x]) || seen[y * width + x]) continue;
      const points = [];
      let [cx, cy, way] = [x, y, 0];
      do {
        if (way === 0) seen[cy * width + cx] = 1;
        points.push(cx + STEP_X[way] / 2, cy + STEP_Y[way] / 2);
        cx += STEP_X[way];
        cy += STEP_Y[way];
        if (!inside(cx + RIGHT[way][0], cy + RIGHT[way][1])) way = (way + 1) % 4;
        else if (inside(cx + LEFT[way][0], cy + LEFT[way][1])) way = (way + 3) % 4;
      } while (cx !== x || cy !== y || way !== 0);
      loops.push(Float32Array.from(points));
    }
  }
  return loops;
}

/** Twice the signed area of an outline; positive for outer ones on the screen. */
export function doubleArea(loop) {
  let sum = 0;
  for (let i = 0, n = loop.length; i < n; i += 2) {
    const j = (i + 2) % n;
    sum += loop[i] * loop[j + 1] - loop[j] * loop[i + 1];
  }
  return sum;
}

/**
 * Ramer, Douglas and Peucker's simplification of a closed outline.
 *
 * @param {Float32Array} loop
 * @param {number} tolerance in the outline's units
 */
export function simplify(loop, tolerance) {
  const n = loop.length / 2;
  if (n < 8) return loop;
  const keep = new Uint8Array(n);
  let far = 0;
  let best = -1;
  for (let i = 1; i < n; i++) {
    const d = (loop[2 * i] - loop[0]) ** 2 + (loop[2 * i + 1] - loop[1]) ** 2;
    if (d > best) [best, far] = [d, i];
  }
  keep[0] = keep[far] = 1;
  const stack = [
    [0, far],
    [far, n],
  ];
  while (stack.length) {
    const [from, to] = stack.pop();
    const end = to % n;
    const [ax, ay, bx, by] = [loop[2 * from], loop[2 * from + 1], loop[2 * end], loop[2 * end + 1]];
    const length = Math.hypot(bx - ax, by - ay) || 1e-9;
    let [index, worst] = [-1, tolerance];
    for (let i = from + 1; i < to; i++) {
      const d = Math.abs((bx - ax) * (ay - loop[2 * i + 1]) - (ax - loop[2 * i]) * (by - ay)) / length;
      if (d > worst) [index, worst] = [i, d];
    }
    if (index > 0) {
      keep[index] = 1;
      stack.push([from, index], [index, to]);
    }
  }
  const out = [];
  for (let i = 0; i < n; i++) if (keep[i]) out.push(loop[2 * i], loop[2 * i + 1]);
  return Float32Array.from(out);
}

/**
 * Outlines of a mask as drawn: specks left out, simplified, in units of the photo (0 to 1 on both axes).
 *
 * @param {{size: [number, number], counts: number[]}} rle
 * @param {number} [small] share of the photo below which a hole or an island is left out, as the service does with
 *   fill_holes and drop_islands; the largest stays
 * @returns {Float32Array[]}
 */
export function outlinesOf(rle, small = 0) {
  const mask = decodeRle(rle);
  const traced = traceOutlines(mask).map((loop) => ({ loop, area: Math.abs(doubleArea(loop)) }));
  const largest = Math.max(0, ...traced.map(({ area }) => area));
  const least = Math.max(24, 2 * small * mask.width * mask.height);
  const loops = [];
  for (const { loop, area } of traced) {
    if (area < Math.min(least, largest) || area < 24) continue;
    const simple = simplify(loop, 0.7);
    for (let i = 0; i < simple.length; i += 2) {
      simple[i] /= mask.width;
      simple[i + 1] /= mask.height;
    }
    loops.push(simple);
  }
  return loops;
}
