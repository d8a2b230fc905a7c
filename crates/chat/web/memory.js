// JSON values in localStorage; in memory until the reload where storage is forbidden.

export class Memory {
  #prefix = 'chatbot.';
  #fallback = new Map();

  get(name) {
    try {
      return JSON.parse(localStorage.getItem(this.#prefix + name));
    } catch {
      return this.#fallback.get(name) ?? null;
    }
  }

  set(name, value) {
    try {
      localStorage.setItem(this.#prefix + name, JSON.stringify(value));
    } catch {
      this.#fallback.set(name, value);
    }
  }

  remove(name) {
    this.#fallback.delete(name);
    try {
      localStorage.removeItem(this.#prefix + name);
    } catch {
      // Nothing was kept there.
    }
  }

  /** The names that begin so. */
  names(start) {
    try {
      return Object.keys(localStorage)
        .filter((key) => key.startsWith(this.#prefix + start))
        .map((key) => key.slice(this.#prefix.length));
    } catch {
      return [...this.#fallback.keys()].filter((name) => name.startsWith(start));
    }
  }

  /** Calls `listener(name, value)` when another tab writes or removes (`null`) something. */
  onChange(listener) {
    addEventListener('storage', (event) => {
      if (event.storageArea !== localStorage || !event.key?.startsWith(this.#prefix)) return;
      const name = event.key.slice(this.#prefix.length);
      try {
        listener(name, JSON.parse(event.newValue));
      } catch {
        listener(name, null);
      }
    });
  }
}
