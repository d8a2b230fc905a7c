// One answer on its way: starts it, reads its events, and takes it up again after every lost connection.

import { newId, pause, sessionPath } from './api.js';
import { Problem } from './problem.js';
import { events } from './sse.js';

/** How often an unanswered start is repeated (under the same key, so it can never make two turns). */
const STARTS = 4;
/** How long the server goes on without a reader: enough for a reload, a tunnel, a lift. */
const AWAY_SECONDS = 60;

/**
 * Fires `change` whenever something a reader can see has changed, `accepted` when the server has it, and `end` once.
 * `phase`: `sending`, `waiting` (accepted), `queued`, `answering`, `done`, `failed`, `gone` (it is no longer kept).
 */
export class Turn extends EventTarget {
  phase = 'sending';
  text = '';
  thinking = '';
  thoughtMs = null;
  position = null;
  reconnecting = false;
  stopping = false;
  messageId = null;
  ending = null;
  problem = null;
  model = null;
  #api;
  #notes;
  #lastId = 0;
  #abort = new AbortController();
  #wake = null;
  #thoughtSince = null;

  /** `order`: `{session, body, regenerate, key}`; `body.message` is what the user said. */
  constructor(api, notes, order, messageId = null) {
    super();
    this.#api = api;
    this.#notes = notes;
    this.order = { ...order, key: order.key ?? newId() };
    this.session = order.session;
    this.messageId = messageId;
    if (messageId) this.phase = 'waiting';
  }

  get running() {
    return !['done', 'failed', 'gone'].includes(this.phase);
  }

  /** Runs until the answer has ended, one way or another. */
  async run() {
    this.#note();
    const wake = () => this.#wake?.abort();
    addEventListener('online', wake);
    try {
      await this.#follow();
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#fail(error instanceof Problem ? error : Problem.offline());
    } finally {
      removeEventListener('online', wake);
    }
    if (this.#abort.signal.aborted) return;
    // What never reached the server is found again after a reload.
    const kept = this.phase === 'failed' && !this.messageId && this.problem.passing;
    if (!kept) this.#notes.drop(this);
    this.dispatchEvent(new Event('end'));
  }

  /** Asks the server to end the answer; what was said stays. Before it has begun, the wish is kept until then. */
  async stop() {
    this.stopping = true;
    this.#changed();
    if (!this.messageId) return;
    try {
      await this.#api.cancel(this.messageId);
    } catch (problem) {
      this.stopping = false;
      this.dispatchEvent(Object.assign(new Event('trouble'), { problem }));
      this.#changed();
    }
  }

  /** Leaves the answer to the server, without ending it: this tab is going elsewhere. */
  abandon() {
    this.#abort.abort();
    this.#wake?.abort();
  }

  async #follow() {
    for (let failures = 0; ; ) {
      try {
        const before = this.#lastId;
        const response = await this.#connect();
        if (response.status === 204) return this.#gone();
        for await (const event of events(response)) {
          this.#quiet();
          if (this.#take(event)) return;
        }
        if (this.#lastId > before) failures = 0;
      } catch (error) {
        if (this.#abort.signal.aborted) return;
        if (error instanceof Problem && this.#final(error, failures)) throw error;
        if (error instanceof Problem && error.status === 404 && this.messageId) return this.#gone();
      }
      failures += 1;
      this.reconnecting = true;
      this.#changed();
      this.#wake = new AbortController();
      await pause(Math.min(250 * 2 ** failures, 10_000) * (0.75 + Math.random() / 2), this.#wake.signal);
      if (this.#abort.signal.aborted) return;
    }
  }

  #final(problem, failures) {
    if (problem.status === 401) return true;
    if (this.messageId) return !problem.passing && problem.status !== 404;
    return problem.status !== 0 || failures + 1 >= STARTS;
  }

  #connect() {
    const signal = this.#abort.signal;
    const headers = { Accept: 'text/event-stream' };
    if (this.messageId) {
      if (this.#lastId > 0) headers['Last-Event-ID'] = String(this.#lastId);
      return this.#api.open('GET', `chat/messages/${encodeURIComponent(this.messageId)}/stream`, { headers, signal });
    }
    headers['Idempotency-Key'] = this.order.key;
    const { session, regenerate } = this.order;
    const body = { ...this.order.body, on_disconnect: AWAY_SECONDS, ...(regenerate ? {} : { session_id: session }) };
    const path = regenerate ? `${sessionPath(session)}/regenerate` : 'chat/message';
    return this.#api.open('POST', `${path}?stream=true`, { body, headers, signal });
  }

  /** Takes one event; says whether it was the ending. An event that was seen before a lost connection is not taken twice. */
  #take({ id, event, data }) {
    const frame = JSON.parse(data);
    const number = Number(id);
    if (event === 'start' && frame.reset) {
      this.text = '';
      this.thinking = '';
    } else if (Number.isFinite(number) && number <= this.#lastId) {
      return false;
    }
    if (Number.isFinite(number)) this.#lastId = number;
    if (event === 'start') this.#started(frame);
    else if (event === 'queued') this.#queue(frame);
    else if (event === 'done') this.#done(frame);
    else if (event === 'error') this.#fail(new Problem(frame.status ?? 500, frame));
    else this.#say(frame);
    return event === 'done' || event === 'error';
  }

  #started(frame) {
    this.messageId = frame.message_id;
    this.model = frame.model;
    this.phase = 'waiting';
    this.#note();
    if (this.stopping) this.stop();
    this.dispatchEvent(new Event('accepted'));
    this.#changed();
  }

  #queue({ position }) {
    this.phase = 'queued';
    this.position = position;
    this.#changed();
  }

  #say({ token, thinking }) {
    this.phase = 'answering';
    if (thinking) {
      this.#thoughtSince ??= performance.now();
      this.thinking += thinking;
    }
    if (token) {
      if (this.#thoughtSince !== null) this.thoughtMs ??= performance.now() - this.#thoughtSince;
      this.text += token;
    }
    this.#changed();
  }

  #done(frame) {
    this.ending = frame;
    this.model = frame.model ?? this.model;
    this.phase = 'done';
    this.#changed();
  }

  #fail(problem) {
    this.problem = problem;
    this.phase = 'failed';
    this.#changed();
  }

  #gone() {
    this.phase = 'gone';
    this.#changed();
  }

  #quiet() {
    if (!this.reconnecting) return;
    this.reconnecting = false;
    this.#changed();
  }

  #note() {
    this.#notes.keep(this);
  }

  #changed() {
    this.dispatchEvent(new Event('change'));
  }
}

/** Notes of the answers that are on their way, so that a reload and other tabs find them. One a session. */
export class TurnNotes {
  #memory;
  #user;

  constructor(memory, user) {
    this.#memory = memory;
    this.#user = user;
  }

  #name(session) {
    return `turn.${this.#user}/${session}`;
  }

  keep(turn) {
    this.#memory.set(this.#name(turn.session), { order: turn.order, messageId: turn.messageId, at: Date.now() });
  }

  /** Forgets a turn, unless a later one of its session has been noted. */
  drop(turn) {
    if (this.of(turn.session)?.order.key === turn.order.key) this.#memory.remove(this.#name(turn.session));
  }

  forget(session) {
    this.#memory.remove(this.#name(session));
  }

  /** What is on its way in that session; older than a day is forgotten, as the server has forgotten its key. */
  of(session) {
    const note = this.#memory.get(this.#name(session));
    if (note && Date.now() - note.at > 86_400_000) {
      this.forget(session);
      return null;
    }
    return note;
  }

  /** Calls `listener(session, note)` when another tab starts (or ends: `null`) an answer. */
  onChange(listener) {
    const start = this.#name('');
    this.#memory.onChange((name, note) => {
      if (name.startsWith(start)) listener(name.slice(start.length), note);
    });
  }
}
