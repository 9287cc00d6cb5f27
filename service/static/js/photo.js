/** Photos as the service takes them: JPEG, PNG or WebP; whatever else the browser can read becomes a JPEG. */

const TAKEN = ["image/jpeg", "image/png", "image/webp"];

/** The format by its first bytes, as the service tells it; null for none of the three. */
export async function sniff(blob) {
  const head = new Uint8Array(await blob.slice(0, 12).arrayBuffer());
  const text = String.fromCharCode(...head);
  if (head[0] === 0xff && head[1] === 0xd8 && head[2] === 0xff) return "image/jpeg";
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "image/png";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "image/webp";
  return null;
}

/**
 * @param {Blob} blob
 * @returns {Promise<{blob: Blob, url: string, image: HTMLImageElement, width: number, height: number}>} upright, as the
 *   service sees it; the url is the caller's to revoke
 * @throws {Error} the browser cannot read it
 */
export async function readPhoto(blob) {
  const kind = await sniff(blob);
  const first = await picture(blob);
  if (kind && TAKEN.includes(kind)) return { blob, ...first };
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [first.width, first.height];
  canvas.getContext("2d").drawImage(first.image, 0, 0);
  URL.revokeObjectURL(first.url);
  const jpeg = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  if (!jpeg) throw new Error("the browser made no JPEG of the picture");
  return { blob: jpeg, ...(await picture(jpeg)) };
}

async function picture(blob) {
  const url = URL.createObjectURL(blob);
  const image = new Image(); // turned upright by the browser, as everywhere on the page
  image.src = url;
  try {
    await image.decode();
  } catch (error) {
    URL.revokeObjectURL(url);
    throw error;
  }
  return { url, image, width: image.naturalWidth, height: image.naturalHeight };
}

/** Photos among what was dropped or pasted. */
export function photosIn(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/") || file.type === "");
}
