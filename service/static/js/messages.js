/** What went wrong, in a passer-by's words. Pure. */

import { ApiError, OfflineError } from "./lib/retry.js";

const BY_CODE = {
  queue_full: "error.busy",
  deadline: "error.busy",
  not_ready: "error.not-ready",
  draining: "error.not-ready",
  too_large: "error.too-large",
  too_many_pixels: "error.too-large",
  unsupported_media: "error.unreadable",
  broken_image: "error.unreadable",
  decode_timeout: "error.unreadable",
  nothing_found: "error.nothing-found",
  disk_low: "error.disk-low",
  storage_failed: "error.storage",
  invalid_gtin: "error.gtin",
  conflict: "error.conflict",
  unauthorized: "error.token",
  codes_unavailable: "error.codes",
  photo_not_kept: "error.not-kept",
  embedding_not_found: "error.not-kept",
  no_plate: "plate.none",
};

const FINAL = ["error.too-large", "error.unreadable"];

/** @returns {{key: string, values: {detail: string}, final?: boolean}} final: the same photo again would not help */
export function messageOf(error) {
  if (error instanceof OfflineError) return { key: "error.offline", values: { detail: error.message } };
  if (error instanceof ApiError) {
    const key = BY_CODE[error.code] ?? "error.other";
    return { key, values: { detail: error.message }, final: FINAL.includes(key) };
  }
  return { key: "error.other", values: { detail: String(error?.message ?? error) } };
}
