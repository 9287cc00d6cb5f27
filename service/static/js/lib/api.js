/** The service's HTTP interface as the page uses it: token, problems, offline. */

import { ApiError, OfflineError } from "./retry.js";

const TOKEN = "boothsam.token";

/** The token from `#token=...`, which is removed from the address, or the one that this tab was given before. */
export function initialToken() {
  const match = /(?:^#|&)token=([^&]+)/.exec(location.hash);
  if (match) {
    history.replaceState(null, "", location.pathname + location.search);
    rememberToken(decodeURIComponent(match[1]));
  }
  try {
    return sessionStorage.getItem(TOKEN) ?? "";
  } catch {
    return match ? decodeURIComponent(match[1]) : "";
  }
}

export function rememberToken(token) {
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    // A browser that stores nothing asks again after a reload.
  }
}

export class Api {
  /** @param {{token?: string, onUnauthorized?: () => void}} [options] */
  constructor({ token = "", onUnauthorized = () => {} } = {}) {
    this.token = token;
    this.onUnauthorized = onUnauthorized;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {{json?: object, form?: FormData, headers?: Record<string, string>, signal?: AbortSignal,
   *   timeoutMs?: number}} [options]
   * @returns {Promise<Response>} with a status below 400
   * @throws {ApiError} the service refused
   * @throws {OfflineError} no answer came
   */
  async request(method, path, { json, form, headers = {}, signal, timeoutMs = 180_000 } = {}) {
    const all = { ...headers };
    if (this.token) all.Authorization = `Bearer ${this.token}`;
    if (json !== undefined) all["Content-Type"] = "application/json";
    const timeout = new AbortController();
    const timer = setTimeout(() => timeout.abort(), timeoutMs);
    const stop = () => timeout.abort();
    signal?.addEventListener("abort", stop, { once: true });
    if (signal?.aborted) stop();
    let answer;
    try {
      const body = json !== undefined ? JSON.stringify(json) : form;
      answer = await fetch(path, { method, headers: all, body, signal: timeout.signal, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw new OfflineError(String(error?.message ?? error));
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
    if (answer.ok) return answer;
    const retryAfter = Number.parseFloat(answer.headers.get("Retry-After") ?? "");
    let problem = {};
    try {
      problem = await answer.json();
    } catch {
      // Something between here and the service answered in its place: the status says what can be said.
    }
    if (answer.status === 401) this.onUnauthorized();
    throw new ApiError(answer.status, problem, Number.isFinite(retryAfter) ? retryAfter : null, answer.headers);
  }

  async json(method, path, options = {}) {
    const answer = await this.request(method, path, options);
    return body(answer.json(), options.signal);
  }

  /** The answer's bytes, and its headers. */
  async blob(method, path, options = {}) {
    const answer = await this.request(method, path, options);
    return { blob: await body(answer.blob(), options.signal), headers: answer.headers };
  }
}

/** A body that breaks off is no answer either. */
async function body(reading, signal) {
  try {
    return await reading;
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new OfflineError(String(error?.message ?? error));
  }
}

export function isAbort(error) {
  return error?.name === "AbortError";
}
