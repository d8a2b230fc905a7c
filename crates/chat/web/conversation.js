// The open chat: its history, the answer on its way, and what the reader can do with them.

import { newId } from './api.js';
import { announce, el } from './dom.js';
import { Answer, userMessage } from './message.js';
import { Problem } from './problem.js';
import { Turn } from './turn.js';

/** Fires `turn` (an answer begins, ends or changes hands), `begun` (a new chat got its id), `accepted` (the server has a message), `gone` (the open chat is no more). */
export class Conversation extends EventTarget {
  session = null;
  turn = null;
  #api;
  #notes;
  #follower;
  #choices;
  #list = document.getElementById('messages');
  #earlier = document.getElementById('earlier');
  #notice = document.getElementById('notice');
  #turns = new Map();
  #cursor = null;
  #opening = 0;
  #lastAnswer = null;

  /** `choices()` gives `{model}` for the next answer. */
  constructor({ api, notes, follower, choices }) {
    super();
    this.#api = api;
    this.#notes = notes;
    this.#follower = follower;
    this.#choices = choices;
    this.#earlier.addEventListener('click', () => this.#loadEarlier());
    notes.onChange((session, note) => this.#heard(session, note));
  }

  /** Opens a chat, or an empty one (`null`). */
  async open(session) {
    const opening = ++this.#opening;
    const again = session !== null && session === this.session;
    this.session = session;
    this.#notice.replaceChildren();
    // The same chat, read anew, stays in sight until it has come.
    if (!again) this.#clear();
    this.#attach(session ? (this.#turns.get(session) ?? null) : null);
    if (session === null) return;
    this.#list.setAttribute('aria-busy', 'true');
    try {
      const page = await this.#history(session);
      if (opening === this.#opening) this.#show(page);
    } catch (problem) {
      if (opening === this.#opening) this.#cannotOpen(session, problem);
    }
    this.#list.removeAttribute('aria-busy');
  }

  /** Says something; the answer comes by itself. */
  send(message) {
    if (this.session === null) {
      this.session = newId();
      this.dispatchEvent(new Event('begun'));
    }
    this.#notice.replaceChildren();
    this.#list.append(userMessage({ content: message }));
    this.#start({ session: this.session, regenerate: false, body: { message, ...this.#choices() } });
    this.#follower.toEnd();
  }

  regenerate() {
    if (this.turn?.running || this.session === null) return;
    const old = this.#lastAnswer;
    if (old) old.hidden = true;
    const turn = this.#start({ session: this.session, regenerate: true, body: this.#choices() });
    // The old answer stays until there is something in its place.
    turn.addEventListener('end', () => (turn.text ? old?.remove() : old?.removeAttribute('hidden')));
    this.#follower.toEnd();
  }

  stop() {
    if (this.turn?.running) this.turn.stop();
  }

  /** The chat was deleted: nothing of it is waited for any more. */
  forget(session) {
    this.#turns.get(session)?.abandon();
    this.#turns.delete(session);
    this.#notes.forget(session);
  }

  /** Leaves everything to the server: the page goes to another user. */
  close() {
    for (const turn of this.#turns.values()) turn.abandon();
    this.#turns.clear();
    this.open(null);
  }

  #clear() {
    this.#list.replaceChildren();
    this.#lastAnswer = null;
    this.#cursor = null;
    this.#earlier.hidden = true;
  }

  async #history(session) {
    try {
      return await this.#api.messages(session);
    } catch (problem) {
      // A chat that is only just being begun, here or in another tab, may not be stored yet.
      if (problem.code === 'session_not_found' && this.#notes.of(session)) return { messages: [], next_cursor: null };
      throw problem;
    }
  }

  #show(page) {
    this.#list.replaceChildren();
    this.#lastAnswer = null;
    this.#cursor = page.next_cursor ?? null;
    this.#earlier.hidden = this.#cursor === null;
    this.#list.append(...this.#elements(page.messages, true));
    this.#takeUp(page.messages);
    this.#follower.toEnd();
  }

  #elements(messages, newest) {
    return messages.map((message, index) => {
      if (message.role === 'user') return userMessage(message);
      const answer = this.#answer();
      answer.showStored(message);
      if (newest && index === messages.length - 1) this.#markLast(answer);
      return answer.element;
    });
  }

  /** Shows the answer that is on its way here, started in this tab, before a reload, or in another tab. */
  #takeUp(messages) {
    const last = messages.at(-1);
    let turn = this.#turns.get(this.session);
    const note = this.#notes.of(this.session);
    if (!turn?.running && note) {
      if (note.messageId && messages.some((message) => message.message_id === note.messageId)) {
        this.#notes.forget(this.session);
      } else {
        turn = this.#run(new Turn(this.#api, this.#notes, note.order, note.messageId));
      }
    }
    if (turn?.running || turn?.phase === 'failed') {
      const said = turn.order.body.message;
      if (!turn.order.regenerate && !(last?.role === 'user' && last.content === said)) {
        if (!messages.some((message) => message.message_id === turn.messageId)) this.#list.append(userMessage({ content: said }));
      }
      if (turn.order.regenerate || turn.messageId === last?.message_id) this.#lastAnswer?.remove();
      this.#display(turn);
    } else if (last?.role === 'user') {
      this.#offerAnswer();
    }
  }

  #start(order) {
    const turn = this.#run(new Turn(this.#api, this.#notes, order));
    this.#display(turn);
    return turn;
  }

  #run(turn) {
    this.#turns.set(turn.session, turn);
    turn.addEventListener('accepted', () => this.dispatchEvent(new Event('accepted')));
    turn.addEventListener('end', () => this.#ended(turn));
    turn.addEventListener('trouble', ({ problem }) => announce(problem.message));
    turn.run();
    return turn;
  }

  #display(turn) {
    const answer = this.#answer(turn);
    this.#list.append(answer.element);
    this.#markLast(answer);
    answer.follow(turn);
    this.#attach(turn);
  }

  #answer(turn = null) {
    return new Answer({
      regenerate: () => this.regenerate(),
      retry: () => this.#retry(turn),
    });
  }

  #markLast(answer) {
    this.#lastAnswer?.classList.remove('last');
    this.#lastAnswer = answer.element;
    answer.element.classList.add('last');
  }

  #attach(turn) {
    this.turn = turn;
    this.dispatchEvent(new Event('turn'));
  }

  #retry(turn) {
    if (this.turn?.running) return;
    const { order, messageId, problem } = turn;
    const choices = this.#choices();
    this.#lastAnswer?.remove();
    // Under the same key the server runs the same turn again, or starts it if it never did: never both. Where it is
    // known which of the two holds, another model may be asked.
    if (choices.model === order.body.model || (!messageId && problem.status === 0)) this.#start(order);
    else if (messageId) this.#start({ session: this.session, regenerate: true, body: choices });
    else this.#start({ ...order, key: undefined, body: { ...order.body, model: choices.model } });
    this.#follower.toEnd();
  }

  #ended(turn) {
    if (turn.phase !== 'failed' && this.#turns.get(turn.session) === turn) this.#turns.delete(turn.session);
    const shown = turn.session === this.session;
    if (shown) this.dispatchEvent(new Event('turn'));
    if (shown && turn.problem?.code === 'session_not_found') return this.#vanished();
    // Only the server knows whether a stopped second answer has replaced the first.
    const unsure = turn.phase === 'gone' || (turn.order.regenerate && turn.ending?.finish_reason === 'cancelled');
    if (shown && unsure) this.open(this.session);
    return undefined;
  }

  #vanished() {
    this.forget(this.session);
    this.dispatchEvent(new Event('gone'));
  }

  /** Another tab has begun an answer in the open chat. */
  #heard(session, note) {
    if (session !== this.session || !note || this.#turns.get(session)?.running) return;
    if (note.messageId) this.open(session);
  }

  #offerAnswer() {
    const button = el('button', { type: 'button', class: 'button', on: { click: () => { this.#notice.replaceChildren(); this.regenerate(); } } }, 'Get an answer');
    this.#notice.replaceChildren(el('div', { class: 'trouble' }, el('p', {}, 'This message has no answer yet.'), button));
  }

  #cannotOpen(session, problem) {
    if (problem.code === 'session_not_found') return this.#vanished();
    const words = problem instanceof Problem ? problem : Problem.offline();
    const again = el('button', { type: 'button', class: 'button', on: { click: () => this.open(session) } }, 'Try again');
    this.#notice.replaceChildren(
      el('div', { class: 'trouble', role: 'alert' }, el('div', {}, el('strong', {}, words.message), el('p', {}, words.detail)), again),
    );
    return undefined;
  }

  async #loadEarlier() {
    if (this.#cursor === null) return;
    const session = this.session;
    this.#earlier.disabled = true;
    try {
      const page = await this.#api.messages(session, this.#cursor);
      if (session !== this.session) return;
      this.#cursor = page.next_cursor ?? null;
      this.#follower.keepPlace(() => {
        this.#list.prepend(...this.#elements(page.messages, false));
        this.#earlier.hidden = this.#cursor === null;
      });
    } catch (problem) {
      announce(problem.message);
    } finally {
      this.#earlier.disabled = false;
    }
  }
}
