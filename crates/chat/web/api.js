// Calls to the chat service on behalf of whoever is logged in.

import { Problem } from './problem.js';

export class Api {
  #login;

  constructor(login) {
    this.#login = login;
  }

  /** The answer as it comes, for streams. Throws `Problem` unless it is 2xx; renews a spent token once. */
  async open(method, path, { body, headers = {}, signal } = {}) {
    const send = async (token) => {
      try {
        return await fetch(path, {
          method,
          signal,
          cache: 'no-store',
          headers: {
            Authorization: `Bearer ${token}`,
            ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
            ...headers,
          },
          body: body === undefined ? undefined : JSON.stringify(body),
        });
      } catch (error) {
        throw signal?.aborted ? error : Problem.offline();
      }
    };
    let response = await send(await this.#login.token());
    if (response.ok) return response;
    let problem = await Problem.of(response);
    if (problem.status === 401) {
      response = await send(await this.#login.renew());
      if (response.ok) return response;
      problem = await Problem.of(response);
    }
    throw problem;
  }

  /** The answer's JSON. Reading calls are repeated when the server asks for a little patience. */
  async call(method, path, body) {
    for (let attempt = 1; ; attempt += 1) {
      try {
        const response = await this.open(method, path, { body });
        return response.status === 204 ? null : await response.json();
      } catch (problem) {
        const again = method === 'GET' && problem.passing && problem.status !== 0 && attempt < 3;
        if (!again) throw problem instanceof Problem ? problem : Problem.offline();
        await pause(Math.min(problem.retryAfter ?? 1, 5) * 1000);
      }
    }
  }

  models = () => this.call('GET', 'chat/models');
  makeKey = (name) => this.call('POST', 'auth/keys', { name });
  usage = () => this.call('GET', 'chat/usage');
  sessions = (cursor, limit) => this.call('GET', `chat/sessions?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`);
  session = (id) => this.call('GET', sessionPath(id));
  change = (id, change) => this.call('PATCH', sessionPath(id), change);
  remove = (id) => this.call('DELETE', sessionPath(id));
  export = (id) => this.call('GET', `${sessionPath(id)}/export`);
  messages = (id, before) => this.call('GET', `${sessionPath(id)}/messages?limit=50${before ? `&before=${encodeURIComponent(before)}` : ''}`);
  cancel = (messageId) => this.call('POST', `chat/messages/${encodeURIComponent(messageId)}/cancel`);
}

export function sessionPath(id) {
  return `chat/sessions/${encodeURIComponent(id)}`;
}

export function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** A new random id, also where the page was not opened over https. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
