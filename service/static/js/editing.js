/** One photo and its prompts: sends it, asks for masks, and does both again when the service forgot. */

import { History, question, withBox, withPoint, withPrompt } from "./lib/history.js";
import { ApiError, retrying } from "./lib/retry.js";

const LOST = ["embedding_not_found", "photo_not_kept"];
const SLOW_MS = 2000;

/**
 * Photo and prompts stay here, in the page's memory: a service that was started again gets both anew, and the visitor
 * sees a mask. An epoch counts how often the photo was sent; an answer of an older epoch is asked for again.
 */
export class Editing {
  /**
   * @param {import("./lib/api.js").Api} api
   * @param {ReturnType<import("./lib/store.js").createStore>} store
   * @param {object} photo as readPhoto() gives it
   * @param {(error: Error) => void} onError
   */
  constructor(api, store, photo, onError) {
    Object.assign(this, { api, store, photo, onError });
    this.abort = new AbortController();
    this.history = new History();
    this.epoch = 0;
    this.sent = null;
    this.size = { width: photo.width, height: photo.height };
    this.chain = Promise.resolve();
    this.marks = [];
    this.retry = {
      signal: this.abort.signal,
      onWait: (error) => this.#waits(error),
    };
  }

  get signal() {
    return this.abort.signal;
  }

  get step() {
    return this.history.present;
  }

  close() {
    this.abort.abort(new DOMException("another photo", "AbortError"));
    URL.revokeObjectURL(this.photo.url);
  }

  /** Send the photo, before anybody has tapped. */
  async analyse() {
    this.#set({ analysing: true, slow: false });
    const timer = setTimeout(() => this.#set({ slow: true }), SLOW_MS);
    try {
      return await this.#embed();
    } finally {
      clearTimeout(timer);
      this.#set({ analysing: false, slow: false, waiting: null });
    }
  }

  tap(point, label) {
    // While there is no mask there is nothing that could be taken away.
    this.#enqueue((from) => withPoint(from, point, from ? label : 1), { point, label: this.step ? label : 1 });
  }

  drag(box) {
    this.#enqueue(() => withBox(box), { box });
  }

  /** A prompt as a whole; resolves to the step, or null when it failed. */
  prompt(prompt) {
    return this.#enqueue(() => withPrompt(prompt), {});
  }

  undo = () => this.#enqueue(() => this.#travel("undo"));
  redo = () => this.#enqueue(() => this.#travel("redo"));
  clear = () => this.#enqueue(() => this.#travel("clear"));

  choose(index) {
    const { step } = this;
    if (!step?.answer?.masks[index] || step.chosen === index) return;
    step.chosen = index;
    this.#show();
  }

  /**
   * Call with the embedding's id, and again with a new one when the service lost the photo.
   *
   * @template T
   * @param {(id: string, epoch: number) => Promise<T>} call
   * @returns {Promise<T>}
   */
  async withEmbedding(call) {
    for (let tries = 0; ; tries++) {
      const { id, epoch } = await this.#embed();
      try {
        return await retrying(() => call(id, epoch), this.retry);
      } catch (error) {
        if (!(error instanceof ApiError && LOST.includes(error.code)) || tries >= 2) throw error;
        if (this.epoch === epoch) this.sent = null;
      }
    }
  }

  /** Call with the chosen mask of a step (by default the one that is shown), which is asked for again when needed. */
  withMask(call, step = this.step) {
    let again = true;
    return this.withEmbedding(async (id, epoch) => {
      if (step.epoch !== epoch) await this.#ask(step);
      try {
        return await call(id, step.answer.masks[step.chosen], step);
      } catch (error) {
        if (!again || error?.code !== "invalid_prompt") throw error;
        again = false; // the mask was dropped from the cache, the photo was not
        step.epoch = -1;
        await this.#ask(step);
        return call(id, step.answer.masks[step.chosen], step);
      }
    });
  }

  #embed() {
    this.sent ??= this.#send().catch((error) => {
      this.sent = null;
      throw error;
    });
    return this.sent;
  }

  async #send() {
    const answer = await retrying(() => {
      const form = new FormData();
      form.append("image_file", this.photo.blob, "photo");
      form.append("keep", "true");
      return this.api.json("POST", "/embeddings", { form, signal: this.signal });
    }, this.retry);
    const [height, width] = answer.size_hw;
    this.size = { width, height };
    this.epoch += 1;
    this.#set({ photo: { ...this.photo, width, height, embeddingId: answer.id } });
    return { id: answer.id, epoch: this.epoch };
  }

  async #ask(step) {
    await this.withEmbedding(async (id, epoch) => {
      if (step.parent && step.parent.epoch !== epoch) await this.#ask(step.parent);
      const ask = () =>
        this.api.json("POST", `/embeddings/${id}/segment`, { json: question(step), signal: this.signal });
      let answer;
      try {
        answer = await ask();
      } catch (error) {
        if (error?.code !== "invalid_prompt" || !question(step).mask_input) throw error;
        step.parent.epoch = -1;
        await this.#ask(step.parent);
        answer = await ask();
      }
      if (!step.answer || step.chosen >= answer.masks.length) step.chosen = answer.best;
      step.answer = answer;
      step.epoch = epoch;
    });
  }

  /** One after the other, in the order they were made; what comes during the analysis waits for it. */
  #enqueue(make, mark = null) {
    if (mark) this.#mark([...this.marks, mark]);
    const run = this.chain.then(() => this.#run(make));
    this.chain = run
      .catch((error) => {
        if (!this.signal.aborted) this.onError(error);
      })
      .then(() => {
        if (mark) this.#mark(this.marks.filter((one) => one !== mark));
      });
    return run.catch(() => null);
  }

  async #run(make) {
    this.signal.throwIfAborted();
    const step = make(this.step);
    if (!step) return this.step;
    this.#set({ asking: this.store.state.asking + 1 });
    try {
      await this.#ask(step);
      this.history.push(step);
    } finally {
      this.#set({ asking: Math.max(0, this.store.state.asking - 1), waiting: null });
    }
    this.#show();
    return step;
  }

  #travel(way) {
    this.history[way]();
    this.#show();
    return null;
  }

  #show() {
    const { history } = this;
    this.#set({
      step: history.present,
      chosen: history.present?.chosen ?? 0,
      canUndo: history.canUndo,
      canRedo: history.canRedo,
    });
  }

  #mark(marks) {
    this.marks = marks;
    this.#set({ marks });
  }

  #waits(error) {
    const starting = ["not_ready", "draining"].includes(error?.code);
    const why = error instanceof ApiError ? (starting ? "starting" : "busy") : "offline";
    this.#set({ waiting: error === null ? null : why });
  }

  /** What belongs to a photo that was left is not shown any more. */
  #set(patch) {
    if (!this.signal.aborted) this.store.set(patch);
  }
}
