// Errors of API calls, with texts that say what the user can do.

const WORDS = {
  offline: ['The server cannot be reached', 'Check your connection; nothing you wrote is lost.'],
  invalid_credentials: ['That user id and password do not fit', 'Check both and try again.'],
  too_many_attempts: ['Too many attempts', 'Wait a moment before the next one.'],
  registration_closed: ['Registration is closed here', 'Ask whoever runs this server for an account.'],
  user_exists: ['That user id is taken', 'Choose another one, or log in.'],
  rate_limited: ['That was a bit fast', 'Wait a second, then try again.'],
  queue_full: ['The model is busy', 'Everyone is waiting for it right now. Try again in a moment.'],
  overloaded: ['The server is busy', 'Try again in a moment.'],
  session_busy: ['This chat is still answering', 'Wait for the answer to end, then try again.'],
  interrupted: ['The answer was interrupted', 'The server that wrote it has stopped. Try again.'],
  shutting_down: ['The server is restarting', 'Try again in a moment.'],
  llm_unavailable: ['The model server cannot be reached', 'It may be starting. Try again in a moment.'],
  llm_timeout: ['The model took too long', 'Try again, or choose another model.'],
  llm_failed: ['The model stopped in the middle', 'Try again, or choose another model.'],
  store_unavailable: ['The chat history cannot be reached', 'Try again in a moment.'],
  session_not_found: ['This chat is gone', 'It was deleted, here or elsewhere.'],
};

export class Problem extends Error {
  /** `body` is the server's problem object; `status` is 0 where no answer came at all. */
  constructor(status, body = {}, retryAfter = null) {
    const code = body.code ?? (status === 0 ? 'offline' : 'unknown');
    const words = WORDS[code];
    super(words?.[0] ?? body.title ?? `The server answered with status ${status}`);
    this.name = 'Problem';
    this.status = status;
    this.code = code;
    this.requestId = body.request_id ?? null;
    this.retryAfter = retryAfter;
    this.detail = this.#detail(body, words);
  }

  #detail(body, words) {
    const fields = (body.errors ?? []).map((error) => error.detail).filter(Boolean);
    if (fields.length > 0) return fields.join(' ');
    return words?.[1] ?? body.detail ?? '';
  }

  /** Whether the same call may well work a little later. */
  get passing() {
    return this.status === 0 || [408, 429, 502, 503, 504].includes(this.status);
  }

  static offline() {
    return new Problem(0);
  }

  /** Reads the problem out of an answer that is not 2xx, whatever proxy made it. */
  static async of(response) {
    const wait = Number.parseFloat(response.headers.get('Retry-After'));
    let body = {};
    try {
      body = await response.json();
    } catch {
      // A proxy's page in place of our answer: the status has to do.
    }
    return new Problem(response.status, body ?? {}, Number.isFinite(wait) ? wait : null);
  }
}
