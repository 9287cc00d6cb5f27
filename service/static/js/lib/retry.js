/** When to ask again, and how long to wait. Pure but for the sleep, which can be given. */

/** The service answered, with a problem (RFC 9457). */
export class ApiError extends Error {
  constructor(status, problem = {}, retryAfter = null, headers = new Headers()) {
    const { code = "internal", title = "", detail = "", hint = "" } = problem;
    super(detail || title || `HTTP ${status}`);
    this.name = "ApiError";
    Object.assign(this, { status, code, title, detail, hint, retryAfter, headers });
  }
}

/** No answer came: the service is gone, or the network. */
export class OfflineError extends Error {
  constructor(message = "no answer") {
    super(message);
    this.name = "OfflineError";
  }
}

/** Milliseconds before the n-th retry, from 0: doubles up to a cap, with up to a quarter taken off at random. */
export function backoff(n, { base = 500, cap = 5000, random = Math.random } = {}) {
  return Math.min(cap, base * 2 ** n) * (1 - random() / 4);
}

export function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    function stop() {
      clearTimeout(timer);
      reject(signal.reason);
    }
    signal?.addEventListener("abort", stop, { once: true });
  });
}

const BUSY = [429, 503];

/**
 * Call until it answers. Busy answers wait what the service says, for `patience` ms in all; without any answer it is
 * tried for `offlinePatience` ms (for ever by default: the photo is still on the screen).
 *
 * @template T
 * @param {() => Promise<T>} call
 * @returns {Promise<T>}
 */
export async function retrying(call, options = {}) {
  const { signal, patience = 60_000, offlinePatience = Infinity, onWait = () => {}, wait = sleep } = options;
  const { now = () => Date.now(), random = Math.random } = options;
  let [busySince, offlineSince, tries] = [null, null, 0];
  for (;;) {
    try {
      const value = await call();
      if (tries) onWait(null);
      return value;
    } catch (error) {
      let ms;
      if (error instanceof ApiError && BUSY.includes(error.status) && error.code !== "codes_unavailable") {
        [busySince, offlineSince] = [busySince ?? now(), null];
        ms = Math.min(Math.max(error.retryAfter ?? 1, 0.2), 15) * 1000 + random() * 200;
        if (now() - busySince + ms > patience) throw error;
      } else if (error instanceof OfflineError) {
        [busySince, offlineSince] = [null, offlineSince ?? now()];
        ms = backoff(tries, { random });
        if (now() - offlineSince + ms > offlinePatience) throw error;
      } else {
        throw error;
      }
      tries += 1;
      onWait(error);
      await wait(ms, signal);
    }
  }
}
