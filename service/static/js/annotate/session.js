/** Annotating a folder: photos, prompts, objects, saving. Talks to the service; knows nothing of the screen. */

import { isAbort } from "../lib/api.js";
import { History, withBox, withPoint } from "../lib/history.js";
import { ApiError } from "../lib/retry.js";
import { createStore, preferences } from "../lib/store.js";
import { ask, DISPLAY_SIDE, replay } from "./asking.js";
import { persistently } from "./contact.js";
import { Images } from "./images.js";
import { ObjectList } from "./objects.js";
import { displayRuns } from "./runs.js";
import { Saver } from "./saver.js";
import { Work } from "./work.js";

const PAGE = 500;
// An encoder as quick as this is over before the next click; a slower one waits until there is a mask to look at.
const QUICK_MS = 700;
const PREFETCH_AFTER_MS = 250;
const FINISHED = ["done", "skipped", "broken"];

export class Session {
  /** @param {import("../lib/api.js").Api} api */
  constructor(api) {
    this.api = api;
    this.images = new Images((key, options) => this.api.blob("GET", `/annotations/photos/${key}/image`, options), (call) =>
      this.#ask(call),
    );
    this.prefetched = null;
    this.store = createStore({
      state: "starting", // starting | empty | analysing | ready | segmenting | masked | broken
      server: "ok", // ok | busy | offline
      folder: "",
      photos: [],
      progress: null,
      categories: [],
      category: 1,
      index: -1,
      work: null,
      revision: 0, // counts changes inside `work`
      mode: "keep",
      selected: -1,
      unsaved: 0,
      message: null, // {text, values, kind}
      slow: false,
    });
    this.saver = new Saver({
      ask: (call, options) => this.#ask(call, options),
      put: (path, json) => this.api.json("PUT", `/annotations/photos/${path}`, { json }),
      count: (unsaved) => this.store.set({ unsaved }),
      full: () => this.say("disk-low", "error"),
      saved: (work, answer) => {
        this.#note(answer);
        this.#changed();
      },
      renew: async (work) => {
        const lost = work.list.present.filter((object) => object.step && !object.segmentation);
        for (const { step } of lost) await replay(step, work, this.#service(work));
        return lost.length > 0;
      },
      refused: (work, error) => this.#refused(work, error),
    });
  }

  get state() {
    return this.store.state;
  }

  get photo() {
    return this.state.photos[this.state.index] ?? null;
  }
  get step() {
    return this.state.work?.prompts.present ?? null;
  }

  /** The mask that would be accepted now. */
  get candidate() {
    const step = this.step;
    return step?.answer ? step.answer.masks[step.chosen] : null;
  }

  say(text, kind = "info", values = {}) {
    this.store.set({ message: text ? { text, kind, values, at: Date.now() } : null });
  }

  #changed(patch = {}) {
    this.store.set({ revision: this.state.revision + 1, ...patch });
  }

  #ask(call, options) {
    return persistently(call, (server) => this.store.set({ server }), options);
  }

  async start() {
    const pages = [];
    for (let offset = 0; offset !== null; offset = pages.at(-1).next) {
      const path = `/annotations?offset=${offset}&limit=${PAGE}`;
      pages.push(await this.#ask(() => this.api.json("GET", path)));
    }
    const [first] = pages;
    const { folder, progress, categories } = first;
    const photos = pages.flatMap((page) => page.photos);
    const state = photos.length ? "analysing" : "empty";
    this.store.set({ folder, photos, progress, categories, category: categories[0].id, state });
    if (!photos.length) return;
    const last = photos.findIndex((photo) => photo.key === preferences.get("annotate.last"));
    const resume = photos.findIndex((photo) => photo.key === first.resume);
    // Where it stopped, if that photo is not finished; else the first one that is left.
    const at = last >= 0 && !FINISHED.includes(photos[last].status) ? last : resume >= 0 ? resume : Math.max(0, last);
    await this.open(at);
  }

  // Photos

  async open(index) {
    const { photos } = this.state;
    if (index < 0 || index >= photos.length) return;
    this.state.work?.abort.abort(new DOMException("left", "AbortError"));
    clearTimeout(this.prefetchTimer);
    const entry = photos[index];
    const work = new Work(entry);
    preferences.set("annotate.last", entry.key);
    const state = entry.status === "broken" ? "broken" : "analysing";
    if (entry.status === "changed") this.images.forget(entry.key);
    this.store.set({ index, work, state, selected: -1, mode: "keep", slow: false });
    if (state === "broken") return;
    const slow = setTimeout(() => this.#mine(work) && this.store.set({ slow: true }), 2000);
    try {
      await Promise.all([this.#load(work), this.#embed(work)]);
    } catch (error) {
      this.#failed(work, error);
    } finally {
      clearTimeout(slow);
      if (this.#mine(work)) this.store.set({ slow: false });
    }
  }

  #mine(work) {
    return this.state.work === work;
  }

  async #load(work) {
    const { signal } = work.abort;
    const answer = await this.#ask(() => this.api.json("GET", `/annotations/photos/${work.key}`, { signal }), { signal });
    work.list = new ObjectList(
      answer.objects.map((object) => ({
        category: object.category_id,
        id: object.id,
        source: null,
        segmentation: object.segmentation,
        score: object.score,
        mask: { rle: displayRuns(object.segmentation, DISPLAY_SIDE) },
      })),
    );
    work.sha256 = answer.photo_sha256;
    work.loaded = true;
    this.#note(answer);
    if (answer.status === "changed") this.say("changed", "warning");
    this.#changed();
  }

  async #embed(work) {
    work.embedding = await this.#service(work, work.abort.signal).embed();
    if (!this.#mine(work)) return;
    const step = work.prompts.present;
    if (step && !step.answer) await this.#answer(work, step);
    else this.#changed({ state: step ? "masked" : "ready" });
    if ((work.embedding.ms.embed ?? 0) < QUICK_MS) this.#prefetchSoon();
  }

  #failed(work, error) {
    if (isAbort(error) || !this.#mine(work)) return;
    if (error instanceof ApiError && [413, 415, 422].includes(error.status)) {
      const photos = this.state.photos.with(this.state.index, { ...this.photo, status: "broken", trouble: error.message });
      this.store.set({ state: "broken", photos });
    } else {
      this.say("failed", "error", { detail: error.message });
    }
  }

  /** The next photo that is not finished is analysed while this one is worked on: one at a time, like anybody else's. */
  #prefetchSoon() {
    clearTimeout(this.prefetchTimer);
    this.prefetchTimer = setTimeout(() => this.#prefetch(), PREFETCH_AFTER_MS);
  }

  async #prefetch() {
    const { photos, index, work } = this.state;
    const next = this.#next(index);
    if (next < 0 || this.prefetched === photos[next].key) return;
    if (work.asking) return this.#prefetchSoon();
    const { key } = photos[next];
    this.prefetched = key;
    try {
      this.images.get(key).catch(() => {});
      await this.api.json("POST", `/annotations/photos/${key}/embedding`, { signal: work.abort.signal });
    } catch {
      this.prefetched = null; // busy or broken: the photo is analysed when its turn comes, and told of then
    }
  }

  #next(from) {
    const { photos } = this.state;
    for (let i = from + 1; i < photos.length; i++) if (!FINISHED.includes(photos[i].status)) return i;
    return -1;
  }

  neighbour(by) {
    return this.open(this.state.index + by);
  }

  /** To the next photo that is not finished, from the start again at the end. */
  async forward() {
    const { photos, index } = this.state;
    let next = this.#next(index);
    if (next < 0) next = photos.findIndex((photo, i) => i !== index && !FINISHED.includes(photo.status));
    if (next >= 0) return this.open(next);
    this.say("all-done", "success");
    if (index + 1 < photos.length) return this.open(index + 1);
  }

  // Prompts

  point(xy, background = this.state.mode === "remove") {
    const { work } = this.state;
    const step = withPoint(work.prompts.present, xy, background ? 0 : 1);
    this.#prompt(work, step);
  }

  box(box) {
    this.#prompt(this.state.work, withBox(box));
  }

  #prompt(work, step) {
    if (!work || this.state.state === "broken") return;
    work.prompts.push(step);
    work.list.forgetRedo();
    if (work.embedding) this.#answer(work, step).catch((error) => this.#failed(work, error));
    else this.#changed();
  }

  /** Ask for a step's masks; only the newest question counts. */
  async #answer(work, step) {
    work.asking?.abort(new DOMException("another question", "AbortError"));
    const asking = (work.asking = new AbortController());
    const stop = () => asking.abort(work.abort.signal.reason);
    work.abort.signal.addEventListener("abort", stop, { once: true });
    this.#changed({ state: "segmenting" });
    const { signal } = asking;
    try {
      await ask(step, work, this.#service(work, signal));
    } catch (error) {
      if (isAbort(error)) return;
      if (work.prompts.present === step) work.prompts.undo();
      if (this.#mine(work)) this.#changed({ state: this.candidate ? "masked" : "ready" });
      this.say("failed", "error", { detail: error.message });
      return;
    } finally {
      work.abort.signal.removeEventListener("abort", stop);
      if (work.asking === asking) work.asking = null;
    }
    if (!this.#mine(work)) return;
    this.#changed({ state: this.candidate ? "masked" : "ready" });
    this.#prefetchSoon();
  }

  #service(work, signal) {
    const post = (path, json) => this.#ask(() => this.api.json("POST", path, { json, signal }), { signal });
    return {
      segment: (id, json) => post(`/embeddings/${id}/segment`, json),
      embed: () => post(`/annotations/photos/${work.key}/embedding`),
    };
  }

  nextMask() {
    const step = this.step;
    if (!step?.answer || step.answer.masks.length < 2) return;
    const { masks } = step.answer;
    const order = masks.map((_, i) => i).sort((a, b) => masks[b].iou_prediction - masks[a].iou_prediction);
    step.chosen = order[(order.indexOf(step.chosen) + 1) % order.length];
    this.#changed();
  }

  clear() {
    const { work } = this.state;
    work?.asking?.abort(new DOMException("cleared", "AbortError"));
    work?.prompts.clear();
    if (work) this.#changed({ state: work.embedding ? "ready" : "analysing" });
  }

  undo() {
    const { work } = this.state;
    if (!work) return;
    if (work.prompts.canUndo) {
      work.asking?.abort(new DOMException("undone", "AbortError"));
      work.prompts.undo();
    } else if (work.list.canUndo) {
      work.prompts = work.list.undo() ?? new History();
      this.saver.touch(work);
    }
    this.#settled(work);
  }

  redo() {
    const { work } = this.state;
    if (!work) return;
    if (work.prompts.canRedo) work.prompts.redo();
    else if (work.list.canRedo) {
      work.list.redo();
      work.prompts = new History();
      this.saver.touch(work);
    }
    this.#settled(work);
  }

  /** After a jump in the history: a step whose answer never came is asked again. */
  #settled(work) {
    const step = work.prompts.present;
    if (step && !step.answer && work.embedding) this.#answer(work, step).catch((error) => this.#failed(work, error));
    else this.#changed({ state: !work.embedding ? "analysing" : step ? "masked" : "ready", selected: -1 });
  }

  // Objects

  /** Accept the candidate; false when there is none. */
  accept() {
    const { work, category } = this.state;
    const mask = this.candidate;
    if (!work?.loaded || !mask || this.state.state !== "masked") return false;
    if (!mask.area) {
      this.say("empty-mask", "warning");
      return false;
    }
    const source = { embedding_id: this.step.answer.embedding_id, logits_id: mask.logits_id };
    const object = { category, id: null, source, segmentation: null, score: mask.iou_prediction, mask, step: this.step };
    work.list.add(object, work.prompts);
    work.prompts = new History();
    this.saver.touch(work);
    this.#changed({ state: "ready", selected: -1, mode: "keep" });
    return true;
  }

  removeObject(index = this.state.selected >= 0 ? this.state.selected : this.state.work?.list.present.length - 1) {
    const { work } = this.state;
    if (!work?.list.remove(index)) return;
    this.saver.touch(work);
    this.#changed({ selected: -1 });
  }

  select(index) {
    this.#changed({ selected: this.state.selected === index ? -1 : index });
  }

  setCategory(id) {
    const { work, selected, categories } = this.state;
    if (!categories.some((category) => category.id === id)) return;
    if (selected >= 0 && work?.list.recategorise(selected, id)) this.saver.touch(work);
    this.#changed({ category: id });
  }

  /** Accept what is shown, call the photo done, and go on. empty: it holds no product, and that is meant. */
  async finish({ empty = false } = {}) {
    const { work } = this.state;
    if (!work?.loaded) return;
    if (this.state.state === "segmenting") return this.say("wait", "info");
    if (this.candidate && !this.accept()) return;
    if (!work.list.present.length && !empty) return this.say("nothing-yet", "warning");
    this.saver.touch(work, true);
    await this.forward();
  }

  async skip() {
    const { work } = this.state;
    if (!work) return;
    this.saver.skip(work);
    await this.forward();
  }

  /** The service will never take this: what is on the disk is what is shown. */
  async #refused(work, error) {
    this.say(error.code === "photo_changed" ? "changed" : "not-saved", "error", { detail: error.message });
    if (this.#mine(work)) await this.#load(work).catch(() => {});
  }

  /** What the service told about a photo, into the list. */
  #note({ key, status, objects, trouble, progress }) {
    const at = this.state.photos.findIndex((photo) => photo.key === key);
    if (at < 0) return;
    const photos = this.state.photos.with(at, { ...this.state.photos[at], status, trouble, objects: objects.length });
    this.store.set({ photos, progress });
  }

  /** @param {{id?: number, name: string}[]} wanted */
  async saveCategories(wanted) {
    const json = { categories: wanted };
    const { categories } = await this.#ask(() => this.api.json("PUT", "/annotations/categories", { json }));
    const kept = categories.some((category) => category.id === this.state.category);
    this.store.set({ categories, category: kept ? this.state.category : categories[0].id });
  }
}
