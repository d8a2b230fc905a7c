// The list of chats: open, rename, export, delete.

import { ask, confirmed } from './dialogs.js';
import { announce, el, icon } from './dom.js';

/** Fires `open` with `session` in it. */
export class Sidebar extends EventTarget {
  current = null;
  #api;
  #memory;
  #sessions = [];
  #cursor = null;
  #list = document.getElementById('sessions');
  #more = document.getElementById('more-sessions');
  #menu = document.getElementById('session-menu');
  #subject = null;

  constructor(api, memory) {
    super();
    this.#api = api;
    this.#memory = memory;
    this.#more.addEventListener('click', () => this.#load(this.#cursor));
    memory.onChange((name) => {
      if (name === 'sessions') this.refresh();
    });
    const choose = (id, action) =>
      document.getElementById(id).addEventListener('click', () => {
        this.#menu.hidePopover();
        action(this.#subject);
      });
    choose('rename', (session) => this.#rename(session));
    choose('export', (session) => this.#export(session));
    choose('delete', (session) => this.#delete(session));
  }

  /** Reads the list anew; says nothing when that fails, for the next turn tries again. */
  async refresh() {
    await this.#load(null);
  }

  /** Tells the other tabs that something in the list has changed. */
  tell() {
    this.#memory.set('sessions', Date.now());
  }

  select(session) {
    this.current = session;
    this.#draw();
  }

  titleOf(session) {
    return this.#sessions.find((known) => known.session_id === session)?.title || null;
  }

  clear() {
    this.#sessions = [];
    this.#cursor = null;
    this.#draw();
  }

  async #load(cursor) {
    try {
      const page = await this.#api.sessions(cursor);
      this.#sessions = cursor ? [...this.#sessions, ...page.sessions] : page.sessions;
      this.#cursor = page.next_cursor ?? null;
      this.#draw();
      this.dispatchEvent(new Event('change'));
    } catch (problem) {
      announce(problem.message);
    }
  }

  #draw() {
    this.#list.replaceChildren(...this.#sessions.map((session) => this.#item(session)));
    this.#more.hidden = this.#cursor === null;
  }

  #item(session) {
    const title = session.title || 'Untitled chat';
    const current = session.session_id === this.current;
    const open = el(
      'button',
      { type: 'button', class: 'session-title', title, 'aria-current': current ? 'page' : null, on: { click: () => this.#open(session.session_id) } },
      title,
    );
    const more = el('button', { type: 'button', class: 'icon-button', 'aria-label': `Actions for ${title}`, 'aria-haspopup': 'true' }, icon('more'));
    more.addEventListener('click', () => this.#showMenu(session, more));
    return el('li', { class: current ? 'current' : '' }, open, more);
  }

  #open(session) {
    this.dispatchEvent(Object.assign(new Event('open'), { session }));
  }

  #showMenu(session, button) {
    this.#subject = session;
    this.#menu.showPopover();
    const at = button.getBoundingClientRect();
    const { offsetWidth, offsetHeight } = this.#menu;
    this.#menu.style.left = `${Math.max(8, Math.min(at.left, innerWidth - offsetWidth - 8))}px`;
    this.#menu.style.top = `${Math.min(at.bottom + 4, innerHeight - offsetHeight - 8)}px`;
    this.#menu.querySelector('button').focus();
    this.#menu.addEventListener('toggle', () => button.isConnected && button.focus(), { once: true });
  }

  async #rename(session) {
    const title = await ask('Rename chat', 'Title', session.title ?? '', 200);
    if (!title || title === session.title) return;
    await this.#changing(this.#api.change(session.session_id, { title }), 'Renamed.');
  }

  async #delete(session) {
    const sure = await confirmed('Delete this chat?', `“${session.title || 'Untitled chat'}” and all its messages will be gone for good.`, 'Delete');
    if (!sure) return;
    if (!(await this.#changing(this.#api.remove(session.session_id), 'Deleted.'))) return;
    this.dispatchEvent(Object.assign(new Event('deleted'), { session: session.session_id }));
  }

  async #export(session) {
    try {
      const whole = await this.#api.export(session.session_id);
      const file = URL.createObjectURL(new Blob([JSON.stringify(whole, null, 2)], { type: 'application/json' }));
      const name = (session.title || 'chat').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 60) || 'chat';
      el('a', { href: file, download: `${name}.json` }).click();
      setTimeout(() => URL.revokeObjectURL(file), 60_000);
      announce('Exported.');
    } catch (problem) {
      this.#trouble(problem);
    }
  }

  async #changing(call, done) {
    try {
      await call;
      announce(done);
      this.tell();
      await this.refresh();
      return true;
    } catch (problem) {
      this.#trouble(problem);
      return false;
    }
  }

  #trouble(problem) {
    this.dispatchEvent(Object.assign(new Event('trouble'), { problem }));
  }
}
