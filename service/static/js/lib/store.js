/** State that tells when it changes, and preferences that survive a reload. */

/** @param {object} initial */
export function createStore(initial) {
  const listeners = new Set();
  const store = {
    state: { ...initial },
    /** Merge a patch and tell everybody, once. */
    set(patch) {
      const changed = Object.keys(patch).some((key) => !Object.is(store.state[key], patch[key]));
      if (!changed) return;
      store.state = { ...store.state, ...patch };
      for (const listener of [...listeners]) listener(store.state);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
  return store;
}

const PREFIX = "boothsam.";

/** localStorage as JSON; a browser that keeps nothing gives the default each time. */
export const preferences = {
  get(name, otherwise = null) {
    try {
      const text = localStorage.getItem(PREFIX + name);
      return text === null ? otherwise : JSON.parse(text);
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(PREFIX + name, JSON.stringify(value));
    } catch {
      // Private windows may refuse: the setting then holds until the page is closed.
    }
  },
};
