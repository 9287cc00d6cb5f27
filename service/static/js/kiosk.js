/** The kiosk itself: camera, one photo at a time, what is made of it. The screen is drawn from `store.state` alone. */

import { Api, initialToken, isAbort, rememberToken } from "./lib/api.js";
import { countToday } from "./lib/booth-loop.js";
import { readNumber } from "./lib/gtin.js";
import { byScore } from "./lib/history.js";
import { languages, loadTranslator, pickLanguage } from "./lib/i18n.js";
import { retrying } from "./lib/retry.js";
import { createStore, preferences } from "./lib/store.js";
import { Camera } from "./camera.js";
import { Editing } from "./editing.js";
import { shopOf } from "./look.js";
import { messageOf } from "./messages.js";
import { readPhoto } from "./photo.js";
import { Plate } from "./plate.js";
import { Previewing } from "./previewing.js";
import { Saving } from "./saving.js";
import { StatusPoll } from "./status.js";

const NO_PHOTO = {
  photo: null,
  analysing: false,
  slow: false,
  waiting: null,
  asking: 0,
  step: null,
  chosen: 0,
  marks: [],
  canUndo: false,
  canRedo: false,
  preview: null,
  previewing: false,
  mode: "keep",
  saving: false,
  saved: null,
  reading: false,
  codes: null,
  error: null,
};

const NOTHING_SHOWN = { step: null, chosen: 0, tidy: true, shop: undefined };

export class Kiosk {
  constructor() {
    const look = preferences.get("look", {});
    this.store = createStore({
      ...NO_PHOTO,
      t: (key) => key,
      language: "en",
      languages: [],
      camera: { state: "off", reason: "" },
      filming: false,
      stream: null,
      status: null,
      reachable: true,
      background: look.background ?? "transparent",
      colour: look.colour ?? "#f2c14e",
      format: look.format ?? "png",
      preset: look.preset ?? "",
      presets: [],
      tidy: look.tidy ?? true,
      number: { kind: "none" },
      typed: "",
      today: 0,
      toast: null,
      say: "",
      sheet: null,
      idle: null,
      booth: { on: false, delay: 1, state: "off", reason: "" },
      flash: 0,
    });
    this.api = new Api({ token: initialToken(), onUnauthorized: () => this.set({ sheet: "token" }) });
    this.camera = new Camera({ change: (camera) => this.#cameraChanged(camera) });
    this.editing = null;
    this.video = null;
    this.previewing = new Previewing(this.store, this.api, (error) => this.tell(error));
    this.saving = new Saving(this);
    this.plate = new Plate(this);
    this.poll = new StatusPoll(this);
    this.store.subscribe((state) => this.#follow(state));
    this.shown = NOTHING_SHOWN;
  }

  get state() {
    return this.store.state;
  }

  set = (patch) => this.store.set(patch);
  t = (key, values) => this.state.t(key, values);

  async start() {
    const list = await languages();
    const codes = list.map((one) => one.code);
    const language = preferences.get("language") ?? pickLanguage(navigator.languages, codes);
    this.set({ languages: list });
    await this.setLanguage(codes.includes(language) ? language : "en");
    this.poll.start();
    await this.camera.start();
  }

  /** Captures of today, as the service has them; asked once it is known that it keeps some. */
  async #countToday() {
    this.counting = true;
    try {
      const { captures } = await retrying(() => this.api.json("GET", `/captures?limit=500&before=${2 ** 52}`));
      this.set({ today: this.state.today + countToday(captures) });
    } catch (error) {
      this.tell(error);
    }
  }

  /** The shops that pictures can be made for; asked once. */
  async #listPresets() {
    this.listing = true;
    try {
      const { presets } = await retrying(() => this.api.json("GET", "/presets"));
      this.set({ presets });
    } catch (error) {
      this.tell(error);
    }
  }

  async setLanguage(language, keep = false) {
    const t = await loadTranslator(language);
    document.documentElement.lang = language;
    document.title = t("app.title");
    if (keep) preferences.set("language", language);
    this.set({ t, language });
  }

  setToken(token) {
    rememberToken(token);
    this.api.token = token;
    this.set({ sheet: null });
    this.poll.now();
    if (this.editing && !this.state.photo?.embeddingId) void this.#analyse(this.editing);
  }

  // --- photo ---------------------------------------------------------------------------------------------------------

  async shoot() {
    if (!this.video || this.state.camera.state !== "live" || this.shooting) return null;
    this.shooting = true;
    this.set({ flash: this.state.flash + 1, shooting: true });
    try {
      const blob = await this.camera.shoot(this.video);
      return await this.open(blob);
    } catch {
      this.toast("toast.no-shot", "bad");
      return null;
    } finally {
      this.shooting = false;
      this.set({ shooting: false });
    }
  }

  /** Show a photo at once, and have it analysed. */
  async open(blob) {
    let photo;
    try {
      photo = await readPhoto(blob);
    } catch {
      this.toast("toast.unreadable", "bad");
      return null;
    }
    this.#drop();
    const editing = new Editing(this.api, this.store, photo, (error) => this.tell(error));
    this.editing = editing;
    this.set({ ...NO_PHOTO, photo, sheet: null });
    editing.analysed = this.#analyse(editing);
    return editing;
  }

  async #analyse(editing) {
    this.say("say.analysing");
    this.set({ error: null });
    try {
      await editing.analyse();
    } catch (error) {
      if (!isAbort(error)) this.fail(error);
      return false;
    }
    this.say("say.tap");
    if (this.state.status?.plate && !this.state.booth.on) await this.#preselect(editing);
    return true;
  }

  /** What differs from the empty booth is the product: nobody has to tap. */
  async #preselect(editing) {
    let found;
    try {
      found = await this.askPlate(editing);
    } catch (error) {
      if (!isAbort(error)) this.tell(error);
      return;
    }
    if (editing.signal.aborted || editing.step || this.state.marks.length) return;
    if (found.state === "product") await editing.prompt(found);
    else this.toast(`plate.${found.state}`, "warn");
  }

  askPlate(editing) {
    return editing
      .withEmbedding((id) => editing.api.json("POST", `/embeddings/${id}/plate`, { signal: editing.signal }))
      .then(({ state, points, labels, box_xyxy: box }) => ({ state, points, labels, box }));
  }

  /** Back to the camera; photo and prompts are gone. */
  reset({ keepNumber = false } = {}) {
    this.#drop();
    this.set({ ...NO_PHOTO, ...(keepNumber ? {} : { number: { kind: "none" }, typed: "" }) });
    this.previewing.refresh(null);
    if (this.camera.state === "none" || this.camera.state === "lost") void this.camera.start();
  }

  retry() {
    const { editing } = this;
    this.set({ error: null });
    if (editing) void this.#analyse(editing);
    else this.reset();
  }

  #drop() {
    this.editing?.close();
    this.editing = null;
    this.shown = NOTHING_SHOWN;
  }

  #cameraChanged({ state, reason, stream }) {
    const before = this.state.camera.state;
    this.set({ camera: { state, reason }, stream });
    if (state === "lost" && before === "live") this.say("say.camera-lost");
    if (state === "live" && before === "lost") this.say("say.camera-back");
  }

  /** A new mask asks for a new preview, and is told to those who cannot see it. */
  #follow(state) {
    if (state.status?.captures && !this.counting) void this.#countToday();
    if (state.status?.presets.length && !this.listing) void this.#listPresets();
    const { step, chosen, tidy } = state;
    const { shown } = this;
    const shop = shopOf(state)?.name;
    const another = step !== shown.step || chosen !== shown.chosen;
    if (!another && (!step || (tidy === shown.tidy && shop === shown.shop))) return;
    this.shown = { step, chosen, tidy, shop };
    this.previewing.refresh(step ? this.editing : null);
    if (!step || !another) return;
    const mask = step.answer.masks[chosen];
    this.set({ saved: null });
    this.say("say.mask", { percent: Math.round(mask.iou_prediction * 100) });
  }

  // --- choices -------------------------------------------------------------------------------------------------------

  setBackground(background) {
    const patch = { background };
    if (background === "transparent" && this.state.format === "jpg") {
      patch.format = "png"; // JPEG knows no transparency
      this.toast("toast.now-png");
    }
    this.#look(patch);
  }

  setColour(colour) {
    this.#look({ colour, background: "colour" });
  }

  setFormat(format) {
    const patch = { format };
    if (format === "jpg" && this.state.background === "transparent") {
      patch.background = "white";
      this.toast("toast.now-white");
    }
    this.#look(patch);
  }

  /** @param {string} preset a shop's, which then chooses background, size and format; "": the visitor's own look */
  setPreset(preset) {
    this.#look({ preset });
  }

  setTidy(tidy) {
    this.#look({ tidy });
  }

  #look(patch) {
    this.set(patch);
    const { background, colour, format, preset, tidy } = this.state;
    preferences.set("look", { background, colour, format, preset, tidy });
  }

  nextMask() {
    const { step, chosen } = this.state;
    const order = byScore(step);
    if (order.length > 1) this.editing.choose(order[(order.indexOf(chosen) + 1) % order.length]);
  }

  setNumber(typed) {
    this.set({ typed, number: readNumber(typed) });
  }

  /** A wrong GTIN may be the shop's own number after all. */
  numberIsSku() {
    this.set({ number: { kind: "sku", text: this.state.typed.trim() } });
  }

  /** A barcode came from the scanner, wherever the focus was. */
  scanned(text) {
    if (this.booth.scanned(text)) return;
    if (this.state.saved) this.reset(); // the next product is here
    this.setNumber(text);
    this.toast("toast.scanned", "info", { text });
  }

  /** One more today; the same capture counts once. */
  counted(id) {
    if (id === this.lastCounted) return;
    this.lastCounted = id;
    this.set({ today: this.state.today + 1 });
    this.poll.now();
  }

  save() {
    return this.state.booth.on ? this.booth.keep() : this.saving.capture();
  }

  // --- telling -------------------------------------------------------------------------------------------------------

  say(key, values) {
    // The same sentence twice is read out twice only if it differs.
    const text = this.t(key, values);
    this.set({ say: this.state.say === text ? `${text}\u00a0` : text });
  }

  toast(key, kind = "info", values = {}) {
    clearTimeout(this.toastTimer);
    const text = this.t(key, values);
    this.set({ toast: { text, kind, id: Date.now() } });
    this.toastTimer = setTimeout(() => this.set({ toast: null }), kind === "bad" ? 8000 : 4500);
  }

  /** An error beside the work: it goes on. */
  tell(error) {
    if (isAbort(error)) return;
    const { key, values } = messageOf(error);
    this.toast(key, "bad", values);
  }

  /** An error that ends the work on this photo. */
  fail(error) {
    const message = messageOf(error);
    this.set({ error: message });
    this.say(message.key, message.values);
  }
}
