// Unsent messages, one per user and chat, kept in this tab until it is closed; where storage is forbidden, until the reload.

const PREFIX = 'chatbot.draft.';

export class Drafts {
  #fallback = new Map();

  /** `session` is `null` for the chat that has not begun yet. */
  get(user, session) {
    const key = keyOf(user, session);
    try {
      return this.#fallback.get(key) ?? sessionStorage.getItem(key) ?? '';
    } catch {
      return '';
    }
  }

  set(user, session, text) {
    const key = keyOf(user, session);
    this.#fallback.delete(key);
    try {
      if (text === '') sessionStorage.removeItem(key);
      else sessionStorage.setItem(key, text);
    } catch {
      this.#fallback.set(key, text);
    }
  }

  /** Removes every user's drafts: nothing is left in the tab after logging out. */
  clear() {
    this.#fallback.clear();
    try {
      for (const key of Object.keys(sessionStorage)) if (key.startsWith(PREFIX)) sessionStorage.removeItem(key);
    } catch {
      // Nothing was kept there.
    }
  }
}

function keyOf(user, session) {
  return `${PREFIX}${user}/${session ?? ''}`;
}
