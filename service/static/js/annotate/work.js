/** One photo that is worked on. Pure: no DOM. */

import { History } from "../lib/history.js";
import { ObjectList } from "./objects.js";

/** Left behind whole when the next one is opened; its last save may still be on its way. */
export class Work {
  constructor(entry) {
    this.key = entry.key;
    this.abort = new AbortController();
    this.embedding = null; // {id, photo_sha256, size_hw}
    this.list = new ObjectList();
    this.loaded = false;
    this.prompts = new History();
    this.sha256 = null; // of the photo whose objects were loaded
    this.done = entry.status === "done";
    this.dirty = false; // objects that are not on the disk
    this.skip = false; // a skip that is not on the disk
    this.saving = null;
    this.asking = null;
  }
}
