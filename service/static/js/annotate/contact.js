/** Asking a service that may be busy or gone. Pure: no DOM. */

import { ApiError, OfflineError, retrying } from "../lib/retry.js";

const BUSY = [429, 503];

/**
 * Call until it answers, as `retrying` does.
 *
 * @template T
 * @param {() => Promise<T>} call
 * @param {(server: "ok" | "busy" | "offline") => void} heard told after each try, also by an answer that is a refusal
 * @returns {Promise<T>}
 */
export function persistently(call, heard, options = {}) {
  const once = async () => {
    try {
      const value = await call();
      heard("ok");
      return value;
    } catch (error) {
      if (error instanceof OfflineError) heard("offline");
      else if (error instanceof ApiError) heard(BUSY.includes(error.status) ? "busy" : "ok");
      throw error;
    }
  };
  return retrying(once, options);
}
