/** Saving what was accepted: at once, one save of a photo after the other, and never given up. */

import { sleep } from "../lib/retry.js";
import { FORGOTTEN } from "./asking.js";

export class Saver {
  /**
   * @param {object} on ask(call, options): as Session asks; put(path, json); saved(work, answer): told after each save;
   *   renew(work): makes the service remember the masks of unsaved objects, false: there are none;
   *   refused(work, error): the service says that it never will; full(): the disk is; count(n): photos with unsaved work
   */
  constructor(on) {
    this.on = on;
    this.works = new Set();
  }

  /** The objects changed. A photo that is done stays so, unless nothing is left on it. */
  touch(work, done = work.done && work.list.present.length > 0) {
    work.done = done;
    work.dirty = true;
    this.#keepSaving(work);
  }

  skip(work) {
    work.skip = true;
    this.#keepSaving(work);
  }

  #keepSaving(work) {
    this.works.add(work);
    this.on.count(this.works.size);
    work.saving ??= this.#save(work).finally(() => {
      work.saving = null;
      this.works.delete(work);
      this.on.count(this.works.size);
    });
  }

  async #save(work) {
    let renewed = false;
    while (work.dirty || work.skip) {
      const [flag, path] = work.dirty ? ["dirty", ""] : ["skip", "/skip"];
      const sent = work.list.present;
      const json = { photo_sha256: work.sha256, objects: work.list.body(), done: work.done };
      work[flag] = false;
      try {
        const answer = await this.#stubbornly(() => this.on.put(`${work.key}${path}`, path ? undefined : json));
        if (!path) work.list.settle(sent, answer.objects);
        this.on.saved(work, answer);
        renewed = false;
      } catch (error) {
        if (FORGOTTEN.includes(error.code) && !renewed && (await this.#renewed(work))) {
          [work.dirty, renewed] = [true, true];
          continue;
        }
        [work.dirty, work.skip] = [false, false];
        await this.on.refused(work, error);
      }
    }
  }

  /** The service was started again, or its cache was full, between the mask and its save. */
  async #renewed(work) {
    try {
      return await this.on.renew(work);
    } catch {
      return false; // then the first refusal is what is told
    }
  }

  /** Nothing that was accepted is given up because the service is busy, gone, or short of disk space. */
  async #stubbornly(call) {
    for (;;) {
      try {
        return await this.on.ask(call, { patience: Infinity });
      } catch (error) {
        if (error.code !== "disk_low") throw error;
        this.on.full();
        await sleep(3000);
      }
    }
  }
}
