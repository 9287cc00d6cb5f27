/** Photos' bytes, a few of them kept. */

const KEPT = 3;

export class Images {
  /**
   * @param {(key: string, options?: object) => Promise<{blob: Blob}>} fetch
   * @param {(call: () => Promise<{blob: Blob}>) => Promise<{blob: Blob}>} ask calls until it answers
   */
  constructor(fetch, ask) {
    Object.assign(this, { fetch, ask });
    this.kept = new Map();
  }

  /** A photo's bytes; those that were fetched ahead are there already. */
  get(key) {
    let loading = this.kept.get(key);
    if (!loading) {
      loading = this.ask(() => this.fetch(key)).then(({ blob }) => blob);
      loading.catch(() => this.kept.delete(key));
    }
    this.kept.delete(key);
    this.kept.set(key, loading); // the newest last
    if (this.kept.size > KEPT) this.kept.delete(this.kept.keys().next().value);
    return loading;
  }

  /** Bytes for a thumbnail: not kept, and asked for once. */
  async passing(key) {
    return this.kept.get(key) ?? (await this.fetch(key)).blob;
  }

  forget(key) {
    this.kept.delete(key);
  }
}
