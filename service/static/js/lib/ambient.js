/** The light around a picture is its own: the picture itself, tiny, and blown up by the browser. */

const [SEED, SIZE] = [6, 48];
let seed = null;

/**
 * Two small steps in place of a blur over the whole screen, which weak graphics pay for with every frame.
 *
 * @param {HTMLCanvasElement} canvas stretched over the area by CSS
 * @param {CanvasImageSource} picture
 */
export function paintAmbient(canvas, picture) {
  seed ??= document.createElement("canvas");
  [seed.width, seed.height] = [SEED, SEED];
  seed.getContext("2d").drawImage(picture, 0, 0, SEED, SEED);
  [canvas.width, canvas.height] = [SIZE, SIZE];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(seed, 0, 0, SIZE, SIZE);
}
