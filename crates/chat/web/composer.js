// The message box, its button (Send, or Stop during an answer), and the model menu.

import { Drafts } from './drafts.js';

const TALLEST = 0.4;
/** The server's `chat.max_message_chars` unless an operator has changed it. */
const MAX_CHARACTERS = 131_072;
/** For this long after a click on Send the button, which is Stop now, ignores clicks: the second one of a double click is not meant for it. */
const DOUBLE_CLICK_MS = 500;

const number = new Intl.NumberFormat();

/** Fires `send` with `text` in it, and `stop`. */
export class Composer extends EventTarget {
  #form = document.getElementById('composer');
  #box = document.getElementById('message');
  #button = document.getElementById('send');
  #tooLong = document.getElementById('too-long');
  #model = document.getElementById('model');
  #memory;
  #answering = false;
  #drafts = new Drafts();
  #chat = null;
  #sentAt = -Infinity;
  #usual = '';

  constructor(memory) {
    super();
    this.#memory = memory;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.#answering) return this.#stop();
      this.#sentAt = performance.now();
      return this.#send();
    });
    this.#box.addEventListener('input', () => {
      this.#keepDraft();
      this.#fit();
    });
    this.#box.addEventListener('keydown', (event) => this.#key(event));
    this.#model.addEventListener('change', () => memory.set('model', this.#model.value));
    addEventListener('resize', () => this.#fit());
    this.#fit();
  }

  /** The model for the next answer; empty where the server chooses. */
  choices = () => (this.#model.value ? { model: this.#model.value } : {});

  /** The model that answers next, by name; empty where none is known. */
  model = () => this.#model.value || this.#usual;

  /** Shows the draft of a user's chat; `session` is `null` for a new one. */
  open(user, session) {
    if (this.#chat?.user === user && this.#chat.session === session) return;
    this.#chat = { user, session };
    this.#box.value = this.#drafts.get(user, session);
    this.#fit();
  }

  /** Empties the box when nobody is logged in any more; their drafts stay for the next login unless `forget`. */
  close({ forget }) {
    this.#chat = null;
    this.#box.value = '';
    if (forget) this.#drafts.clear();
  }

  /** The chat was deleted, and its draft with it. */
  discard(user, session) {
    this.#drafts.set(user, session, '');
  }

  offerModels(models) {
    const chosen = this.#memory.get('model') ?? '';
    const known = models.some((model) => model.id === chosen);
    const ids = [...new Set(models.map((model) => model.id))];
    const usual = models.find((model) => model.default)?.id;
    this.#usual = usual ?? ids[0] ?? '';
    this.#model.replaceChildren(new Option(usual ? `Default: ${usual}` : 'Default model', ''), ...ids.map((id) => new Option(id, id)));
    this.#model.value = known ? chosen : '';
  }

  set answering(answering) {
    this.#answering = answering;
    this.#button.classList.toggle('stop', answering);
    this.#button.setAttribute('aria-label', answering ? 'Stop' : 'Send');
    this.#button.title = answering ? 'Stop (Esc)' : 'Send (Enter)';
    this.#fit();
  }

  focus() {
    // A phone's keyboard comes when it is asked for, not by itself.
    if (matchMedia('(hover: hover)').matches) this.#box.focus();
  }

  #keepDraft() {
    if (this.#chat) this.#drafts.set(this.#chat.user, this.#chat.session, this.#box.value);
  }

  #key(event) {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!this.#answering) this.#send();
  }

  #send() {
    const text = this.#box.value;
    if (text.trim() === '' || this.#excess() > 0) return;
    this.#box.value = '';
    this.#keepDraft();
    this.#fit();
    this.dispatchEvent(Object.assign(new Event('send'), { text }));
  }

  #stop() {
    if (performance.now() - this.#sentAt < DOUBLE_CLICK_MS) return;
    this.dispatchEvent(new Event('stop'));
  }

  #fit() {
    this.#box.style.height = 'auto';
    this.#box.style.height = `${Math.min(this.#box.scrollHeight, innerHeight * TALLEST)}px`;
    const excess = this.#excess();
    const words = excess > 0 ? `This message is ${number.format(excess)} characters too long. Shorten it to at most ${number.format(MAX_CHARACTERS)}.` : '';
    if (this.#tooLong.textContent !== words) this.#tooLong.textContent = words;
    this.#tooLong.hidden = excess <= 0;
    this.#button.disabled = !this.#answering && (excess > 0 || this.#box.value.trim() === '');
  }

  /** By how many characters the text is longer than a message may be; 0 or less where it is not. */
  #excess() {
    const text = this.#box.value;
    // Only a text with enough UTF-16 units can have too many characters.
    return text.length > MAX_CHARACTERS ? [...text].length - MAX_CHARACTERS : 0;
  }
}
