/** COCO's compressed run lengths, and masks at the size of a screen. Pure: no DOM. */

/**
 * The text form of run lengths (pycocotools' rleToString), undone.
 *
 * @param {string} text
 * @returns {number[]} uncompressed runs, zeros first
 */
export function unpackRuns(text) {
  const runs = [];
  let [value, shift] = [0, 0];
  for (let i = 0; i < text.length; i++) {
    const bits = text.charCodeAt(i) - 48;
    if (bits < 0 || bits > 63 || shift > 30) throw new RangeError(`${text[i]} makes no run length`);
    value += (bits & 31) * 2 ** shift;
    shift += 5;
    if (bits & 32) continue;
    if (bits & 16) value -= 2 ** shift;
    runs.push(value + (runs.length > 2 ? runs[runs.length - 2] : 0));
    [value, shift] = [0, 0];
  }
  if (shift) throw new RangeError("the run lengths are cut off");
  return runs;
}

/**
 * A mask sampled at a display's size, so that drawing costs nothing at 12 megapixels.
 *
 * @param {{size: [number, number], counts: string | number[]}} rle
 * @param {number} maxSide of the result
 * @returns {{size: [number, number], counts: number[]}} uncompressed run lengths
 */
export function displayRuns(rle, maxSide = 1024) {
  const counts = typeof rle.counts === "string" ? unpackRuns(rle.counts) : rle.counts;
  const [height, width] = rle.size;
  const scale = Math.min(1, maxSide / Math.max(height, width));
  if (scale === 1) return { size: rle.size, counts };
  const [rows, columns] = [Math.max(1, Math.round(height * scale)), Math.max(1, Math.round(width * scale))];
  const sampled = [];
  let [index, end, value, run, current] = [0, counts[0] ?? 0, 0, 0, 0];
  for (let column = 0; column < columns; column++) {
    const x = Math.floor(((column + 0.5) * width) / columns);
    for (let row = 0; row < rows; row++) {
      const at = x * height + Math.floor(((row + 0.5) * height) / rows);
      while (at >= end) {
        index += 1;
        end += counts[index];
        value ^= 1;
      }
      if (value !== current) {
        sampled.push(run);
        [run, current] = [0, value];
      }
      run += 1;
    }
  }
  sampled.push(run);
  return { size: [rows, columns], counts: sampled };
}
