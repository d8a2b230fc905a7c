// Who is logged in: the access token in this tab's memory, the refresh token where a reload finds it.

import { Problem } from './problem.js';

const KEPT = 'login';

export class Login extends EventTarget {
  #memory;
  #access = null;
  #until = 0;
  #refreshing = null;
  #timer = null;

  constructor(memory) {
    super();
    this.#memory = memory;
    memory.onChange((name, kept) => {
      if (name === KEPT && kept?.user !== this.user) this.#adopt(kept);
    });
    this.user = memory.get(KEPT)?.user ?? null;
  }

  /** Logs in and keeps the tokens. Without a password where the server's login is open. */
  async enter(user, password) {
    const tokens = await post('auth/login', { user_id: user, ...(password ? { password } : {}) });
    this.#keep(user, tokens);
    this.user = user;
    this.#changed('entered');
  }

  /** Makes an account and logs in to it. */
  async register(user, password) {
    await post('auth/register', { user_id: user, password });
    await this.enter(user, password);
  }

  /** Ends this login, here at once and at the server if it can be reached. */
  async leave() {
    const token = this.#access;
    this.#forget();
    this.#changed('left');
    if (token) await post('auth/logout', {}, { Authorization: `Bearer ${token}` }).catch(() => {});
  }

  /** An access token that is good for a while. Throws the problem; ends the login when the server says so. */
  async token() {
    if (this.#access && Date.now() < this.#until) return this.#access;
    return this.renew();
  }

  /** A new access token, whatever the present one's age. Callers at the same time share one refresh. */
  renew() {
    this.#refreshing ??= this.#refresh().finally(() => {
      this.#refreshing = null;
    });
    return this.#refreshing;
  }

  async #refresh() {
    try {
      // One tab at a time, each with the newest token: nobody's refresh looks like theft.
      await oneTabAtATime(async () => {
        const kept = this.#memory.get(KEPT);
        if (!kept || kept.user !== this.user) throw new Problem(401, { code: 'missing_token' });
        this.#keep(kept.user, await post('auth/refresh', { refresh_token: kept.refresh }));
      });
      return this.#access;
    } catch (problem) {
      if (problem.status === 401 && this.user) {
        this.#forget();
        this.#changed('ended');
      }
      throw problem;
    }
  }

  #keep(user, tokens) {
    this.#memory.set(KEPT, { user, refresh: tokens.refresh_token });
    this.#access = tokens.access_token;
    const ahead = Math.max(10, Math.min(60, tokens.expires_in / 5));
    const life = Math.max(1, tokens.expires_in - ahead) * 1000;
    this.#until = Date.now() + life;
    clearTimeout(this.#timer);
    // Longer delays overflow a timer; a token asked for later is renewed then.
    if (life < 2 ** 31) this.#timer = setTimeout(() => this.renew().catch(() => {}), life);
  }

  #forget() {
    clearTimeout(this.#timer);
    this.#memory.remove(KEPT);
    this.#access = null;
    this.user = null;
  }

  /** Another tab has logged out, or in as somebody else. */
  #adopt(kept) {
    clearTimeout(this.#timer);
    this.#access = null;
    this.user = kept?.user ?? null;
    this.#changed(kept ? 'entered' : 'left');
  }

  #changed(what) {
    this.dispatchEvent(new Event(what));
  }
}

/** How to log in here (`login`: `open` or `password`) and who may register (`registration`: `open` or `closed`). */
export async function serverSettings() {
  const unknown = { login: 'password', registration: 'open' };
  try {
    const answer = await fetch('auth/settings');
    return answer.ok ? { ...unknown, ...(await answer.json()) } : unknown;
  } catch {
    return unknown;
  }
}

function oneTabAtATime(work) {
  // Locks exist in secure contexts only; elsewhere the server's rule about a repeated refresh has to do.
  return navigator.locks ? navigator.locks.request('chatbot.refresh', work) : work();
}

async function post(path, body, headers = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
  } catch {
    throw Problem.offline();
  }
  if (!response.ok) throw await Problem.of(response);
  return response.status === 204 ? null : response.json();
}
