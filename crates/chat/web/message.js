// One message as the reader sees it: what the user said, or the model's answer, whole or still growing.

import { announce, copyText, el, icon, iconButton } from './dom.js';
import { MarkdownView } from './markdown.js';

/** What the user said, as it was written. */
export function userMessage(message) {
  return el(
    'article',
    { class: 'message user', 'aria-label': 'You' },
    el('div', { class: 'bubble', dir: 'auto' }, message.content),
    el('div', { class: 'actions' }, copyButton(() => message.content)),
  );
}

/** The model's answer. `actions`: `{regenerate, retry}`, called when the reader asks for it. */
export class Answer {
  #body = el('div', { class: 'prose' });
  #view = new MarkdownView(this.#body);
  #thoughts = el('div', { class: 'thoughts', dir: 'auto' });
  #summary = el('span', {}, 'Thinking');
  #thinking = el('details', { class: 'thinking', hidden: true }, el('summary', {}, icon('chevron'), this.#summary), this.#thoughts);
  #status = el('p', { class: 'status', hidden: true });
  #notes = el('div', { class: 'notes' });
  #meta = el('span', { class: 'meta' });
  #actions;
  #foot;
  #shown = null;
  #frame = null;
  #text = '';
  #slowUntil = 0;

  constructor(actions) {
    this.#actions = actions;
    this.#foot = el(
      'div',
      { class: 'actions', hidden: true },
      copyButton(() => this.#text),
      iconButton('again', 'Answer again', () => actions.regenerate()),
      this.#meta,
    );
    this.element = el('article', { class: 'message answer', 'aria-label': 'Answer' }, this.#thinking, this.#body, this.#status, this.#notes, this.#foot);
  }

  /** Shows an answer out of the history. */
  showStored(message) {
    this.#text = message.content;
    this.#view.show(message.content);
    this.#showThinking(message.thinking, 'Thoughts');
    this.#finish(message.finish_reason, message);
  }

  /** Shows a turn and keeps up with it. */
  follow(turn) {
    const draw = () => {
      this.#frame ??= requestAnimationFrame(() => {
        this.#frame = null;
        this.#showTurn(turn);
      });
    };
    turn.addEventListener('change', draw);
    turn.addEventListener('end', () => {
      this.#showTurn(turn);
      announce(turn.phase === 'done' ? 'The answer is complete.' : (turn.problem?.message ?? ''));
    });
    this.#showTurn(turn);
  }

  #showTurn(turn) {
    const running = turn.running;
    if (!running || performance.now() >= this.#slowUntil) this.#showText(turn.text);
    else setTimeout(() => turn.dispatchEvent(new Event('change')), this.#slowUntil - performance.now() + 1);
    this.#showThinking(turn.thinking, thoughtWords(turn));
    this.element.setAttribute('aria-busy', String(running));
    this.#status.hidden = !running || (turn.phase === 'answering' && !turn.reconnecting && !turn.stopping);
    const words = statusWords(turn);
    if (this.#status.textContent !== words) this.#status.replaceChildren(el('span', { class: 'dots', 'aria-hidden': 'true' }), words);
    if (!running) this.#end(turn);
  }

  #showText(text) {
    if (text === this.#shown) return;
    const begun = performance.now();
    this.#shown = text;
    this.#text = text;
    this.#view.show(text);
    // A very long answer is drawn less often, so that drawing takes a small part of the time only.
    this.#slowUntil = begun + Math.min((performance.now() - begun) * 6, 1000);
  }

  #showThinking(text, words) {
    if (!text) return;
    this.#thinking.hidden = false;
    this.#summary.textContent = words;
    if (this.#thoughts.textContent !== text) this.#thoughts.textContent = text;
  }

  #end(turn) {
    if (turn.phase === 'done') this.#finish(turn.ending.finish_reason, { ...turn.ending, model: turn.model });
    else if (turn.problem) this.#trouble(turn.problem);
  }

  #finish(reason, { model, usage, context }) {
    const words = {
      cancelled: this.#text ? 'Stopped.' : 'Stopped before it began.',
      length: 'Cut off: the answer reached its greatest length.',
      interrupted: 'Interrupted: the server that wrote this has stopped.',
      error: 'Broken off: the model failed in the middle.',
    }[reason];
    const dropped = context?.dropped_messages;
    this.#notes.replaceChildren(
      ...[words, dropped ? `The model no longer sees the first ${dropped === 1 ? 'message' : `${dropped} messages`} of this chat: its memory is full.` : null]
        .filter(Boolean)
        .map((note) => el('p', {}, note)),
    );
    const tokens = usage?.completion_tokens;
    this.#meta.textContent = [model, tokens ? `${tokens} ${tokens === 1 ? 'token' : 'tokens'}` : null].filter(Boolean).join(' · ');
    this.#foot.hidden = false;
  }

  #trouble(problem) {
    const again = el('button', { type: 'button', class: 'button', on: { click: () => this.#actions.retry() } }, icon('again'), 'Try again');
    this.#notes.replaceChildren(
      el(
        'div',
        { class: 'trouble', role: 'alert' },
        el('div', {}, el('strong', {}, problem.message), el('p', {}, problem.detail)),
        problem.code === 'session_not_found' ? null : again,
      ),
    );
  }
}

function thoughtWords(turn) {
  if (turn.thoughtMs === null) return turn.running ? 'Thinking…' : 'Thoughts';
  const seconds = Math.max(1, Math.round(turn.thoughtMs / 1000));
  return `Thought for ${seconds === 1 ? 'a second' : `${seconds} seconds`}`;
}

function statusWords(turn) {
  if (turn.reconnecting) return 'Connection lost, reconnecting';
  if (turn.stopping) return 'Stopping';
  if (turn.phase === 'queued') return queueWords(turn.position);
  return turn.phase === 'sending' ? 'Sending' : 'Waiting for the model';
}

function queueWords(ahead) {
  if (ahead === 0) return 'The model is busy; you are next';
  return `The model is busy; ${ahead === 1 ? 'one other waits' : `${ahead} others wait`} before you`;
}

function copyButton(text) {
  const button = iconButton('copy', 'Copy', async () => {
    const copied = await copyText(text());
    button.replaceChildren(icon(copied ? 'check' : 'copy'));
    announce(copied ? 'Copied.' : 'Copying is not allowed here.');
    setTimeout(() => button.replaceChildren(icon('copy')), 1500);
  });
  return button;
}
