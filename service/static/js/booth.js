/** Scan, shoot, next: the loop of a booth that nobody touches. Any trouble stops it, and the next scan goes on. */

import { isAbort } from "./lib/api.js";
import { nextShot, stopFor } from "./lib/booth-loop.js";
import { readNumber } from "./lib/gtin.js";
import { sleep } from "./lib/retry.js";
import { preferences } from "./lib/store.js";
import { messageOf } from "./messages.js";
import { verdictOf } from "./phase.js";
import { labels } from "./saving.js";

const SHOWN_MS = 1200; // how long the result of a shot stays

export class Booth {
  constructor(kiosk) {
    this.kiosk = kiosk;
    this.last = null;
    this.next = null;
    this.running = null;
    kiosk.set({
      booth: { on: preferences.get("booth", false), delay: preferences.get("booth.delay", 1), state: "off", angle: 1 },
    });
  }

  get on() {
    return this.kiosk.state.booth.on;
  }

  #set(patch) {
    this.kiosk.set({ booth: { ...this.kiosk.state.booth, ...patch } });
  }

  /** After a reload: the loop goes on where it was switched on before. */
  resume() {
    if (this.on) this.#wait();
  }

  toggle() {
    const on = !this.on;
    preferences.set("booth", on);
    this.#stopRun();
    this.#set({ on, state: "off", reason: "" });
    this.kiosk.reset();
    if (on) {
      this.kiosk.set({ sheet: null });
      this.#wait();
    }
  }

  setDelay(delay) {
    preferences.set("booth.delay", delay);
    this.#set({ delay });
  }

  /** @returns {boolean} whether the loop took the scan */
  scanned(text) {
    if (!this.on) return false;
    void this.#take(readNumber(text));
    return true;
  }

  /** Shoot with what was scanned last, as by the big button. */
  again() {
    const { number } = this.kiosk.state;
    void this.#take(number);
  }

  /** Leave a shot that stopped: not saved. */
  async skip() {
    await this.#undoStored();
    this.#stopRun();
    this.kiosk.reset();
    this.#wait();
  }

  /** Store what is on the screen although it stopped the loop. */
  async keep() {
    const { kiosk } = this;
    const { shot, stored } = this;
    if (stored && !kiosk.editing?.step) {
      await this.#done(shot, stored);
      return;
    }
    const record = await kiosk.saving.capture({ angle: String(shot.angle) });
    if (!record) return;
    await this.#undoStored(); // the mask was mended by hand: that one counts
    await this.#done({ ...shot, number: kiosk.state.number }, record);
  }

  async #take(number) {
    if (this.running) {
      this.next = number; // scanned while the last one is still worked on: it comes right after
      return;
    }
    this.running = new AbortController();
    this.kiosk.set({ number, typed: number.text ?? "" });
    try {
      await this.#shoot(nextShot(this.last, number), this.running.signal);
    } catch (error) {
      if (!isAbort(error)) this.#stop("error", messageOf(error));
    } finally {
      this.running = null;
    }
    if (this.next && this.on) {
      const [next] = [this.next, (this.next = null)];
      await this.#take(next);
    }
  }

  async #shoot(shot, signal) {
    const { kiosk } = this;
    this.shot = shot;
    await this.#undoStored();
    kiosk.reset({ keepNumber: true });
    if (shot.number.kind === "wrong") return this.#stop("wrong-barcode");
    if (kiosk.state.camera.state !== "live") return this.#stop("no-camera");
    await this.#countDown(signal);
    this.#set({ state: "shooting", angle: shot.angle });
    const editing = await kiosk.shoot();
    signal.throwIfAborted();
    if (!editing) return this.#stop("no-shot");
    this.#set({ state: "finding" });
    if (!(await editing.analysed)) return this.#stop("error", kiosk.state.error ?? undefined);
    signal.throwIfAborted();
    return kiosk.state.status?.plate ? this.#byPlate(editing, shot, signal) : this.#byService(editing, shot, signal);
  }

  /** The empty booth says where the product is; it is looked at before it is stored. */
  async #byPlate(editing, shot, signal) {
    const { kiosk } = this;
    const found = await kiosk.askPlate(editing);
    if (found.state !== "product") return this.#stop(found.state);
    const step = await editing.prompt(found);
    signal.throwIfAborted();
    if (!step) return this.#stop("no-mask");
    const verdict = await kiosk.previewing.verdict();
    signal.throwIfAborted();
    const reason = stopFor(verdict);
    if (reason) return this.#stop(reason);
    this.#set({ state: "saving" });
    const record = await kiosk.saving.store(editing, this.#named(shot), step);
    return this.#done(shot, record);
  }

  /** Without one the service looks for the main product itself, as POST /captures does. */
  async #byService(editing, shot, signal) {
    const { kiosk } = this;
    this.#set({ state: "saving" });
    const record = await kiosk.saving.store(editing, this.#named(shot), null);
    signal.throwIfAborted();
    const { made_by: madeBy, retake } = record.facts;
    this.stored = record; // it is safe; shooting again takes it back
    if (madeBy === "none") return this.#stop("empty");
    const verdict = verdictOf((retake?.reasons ?? []).map(({ code }) => code).join(",") || "ok");
    await kiosk.previewing.stored(record.id, verdict, editing);
    const reason = stopFor(verdict);
    return reason ? this.#stop(reason) : this.#done(shot, record);
  }

  #named(shot) {
    return { ...labels(shot.number), angle: String(shot.angle) };
  }

  async #countDown(signal) {
    for (let left = this.kiosk.state.booth.delay; left > 0; left--) {
      this.#set({ state: "countdown", left });
      this.kiosk.say("booth.countdown", { n: left });
      await sleep(1000, signal);
    }
  }

  async #done(shot, record) {
    const { kiosk } = this;
    this.last = shot;
    this.stored = null;
    kiosk.set({ saved: record });
    kiosk.counted(record.id);
    this.#set({ state: "done", reason: "", lastText: shot.number.text ?? "", lastAngle: shot.angle });
    kiosk.say("say.saved", { name: shot.number.text ?? "" });
    await sleep(SHOWN_MS);
    if (kiosk.state.booth.state !== "done") return;
    kiosk.reset();
    this.#wait();
  }

  /** What was stored of a shot that is taken again is taken back. */
  async #undoStored() {
    const { stored } = this;
    this.stored = null;
    if (!stored) return;
    await this.kiosk.api.request("DELETE", `/captures/${stored.id}?force=true`);
  }

  #wait() {
    this.#set({ state: "waiting", reason: "" });
  }

  #stop(reason, message = null) {
    const { kiosk } = this;
    kiosk.set({ error: null });
    this.#set({ state: "stopped", reason, message });
    const key = message?.key ?? `booth.stop.${reason}`;
    kiosk.say(key, message?.values);
  }

  #stopRun() {
    this.running?.abort(new DOMException("the loop was left", "AbortError"));
    this.next = null;
    this.stored = null;
  }
}
