// The list of chats: open, rename, export, delete.

import { ask, confirmed } from './dialogs.js';
import { announce, el, icon } from './dom.js';

/** How many chats are read at once, and how many at most when the whole list is read anew. */
const PAGE = 50;
const MOST = 500;

/** Fires `open` and `deleted` with `session` in it, `change` when titles may have changed, `trouble` with `problem`. */
export class Sidebar extends EventTarget {
  current = null;
  #api;
  #memory;
  #sessions = [];
  #cursor = null;
  #list = document.getElementById('sessions');
  #more = document.getElementById('more-sessions');
  #menu = document.getElementById('session-menu');
  #trouble = document.getElementById('sessions-trouble');
  #subject = null;
  #titles = new Map();

  constructor(api, memory) {
    super();
    this.#api = api;
    this.#memory = memory;
    this.#more.addEventListener('click', () => this.#load(this.#cursor));
    this.#trouble.addEventListener('click', () => this.refresh());
    memory.onChange((name, news) => {
      if (name !== 'sessions') return;
      if (news?.deleted) this.#tellDeleted(news.deleted);
      this.refresh();
    });
    this.#menu.addEventListener('toggle', ({ newState }) => {
      if (newState === 'closed') this.#button(this.#subject)?.focus();
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

  /** Reads the list anew, as far as it is shown. */
  async refresh() {
    await this.#load(null);
  }

  /** Tells the other tabs that something in the list has changed. */
  tell(news = {}) {
    this.#memory.set('sessions', { ...news, at: Date.now() });
  }

  /** Finds the title of a chat that is too old for the part of the list that is shown. */
  async learn(session) {
    try {
      const { title } = await this.#api.session(session);
      this.#titles.set(session, title);
      this.dispatchEvent(new Event('change'));
    } catch {
      // It has no title yet; the conversation says what is wrong with it.
    }
  }

  select(session) {
    this.current = session;
    this.#draw();
  }

  titleOf(session) {
    return this.#sessions.find((known) => known.session_id === session)?.title || this.#titles.get(session) || null;
  }

  clear() {
    this.#sessions = [];
    this.#titles.clear();
    this.#cursor = null;
    this.#draw();
  }

  async #load(cursor) {
    try {
      const page = await this.#api.sessions(cursor, cursor ? PAGE : Math.min(Math.max(PAGE, this.#sessions.length), MOST));
      this.#sessions = cursor ? [...this.#sessions, ...page.sessions] : page.sessions;
      this.#cursor = page.next_cursor ?? null;
      this.#trouble.hidden = true;
      this.#draw();
      this.dispatchEvent(new Event('change'));
    } catch (problem) {
      this.#trouble.hidden = this.#sessions.length > 0;
      announce(problem.message);
    }
  }

  #draw() {
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    this.#list.replaceChildren(...this.#sessions.map((session) => this.#item(session)));
    this.#more.hidden = this.#cursor === null;
    const item = focused && this.#itemOf(focused.closest('li').dataset.session);
    item?.querySelector(focused.matches('.icon-button') ? '.icon-button' : '.session-title').focus();
  }

  #itemOf(session) {
    return [...this.#list.children].find((item) => item.dataset.session === session) ?? null;
  }

  /** The button that opened the menu: a new one, if the list was drawn since. */
  #button(session) {
    return this.#itemOf(session.session_id)?.querySelector('.icon-button') ?? null;
  }

  #item(session) {
    const title = session.title || 'Untitled chat';
    const current = session.session_id === this.current;
    const open = el(
      'button',
      { type: 'button', class: 'session-title', dir: 'auto', title, 'aria-current': current ? 'page' : null, on: { click: () => this.#open(session.session_id) } },
      title,
    );
    const more = el('button', { type: 'button', class: 'icon-button', 'aria-label': `Actions for ${title}`, 'aria-haspopup': 'true' }, icon('more'));
    more.addEventListener('click', () => this.#showMenu(session, more));
    return el('li', { class: current ? 'current' : '', data: { session: session.session_id } }, open, more);
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
  }

  async #rename(session) {
    const title = await ask('Rename chat', 'Title', session.title ?? '', 200);
    if (!title || title === session.title) return;
    await this.#changing(this.#api.change(session.session_id, { title }), 'Renamed.');
  }

  async #delete(session) {
    const sure = await confirmed('Delete this chat?', `“${session.title || 'Untitled chat'}” and all its messages will be gone for good.`, 'Delete');
    if (!sure) return;
    const deleted = session.session_id;
    if (!(await this.#changing(this.#api.remove(deleted), 'Deleted.', { deleted }))) return;
    this.#tellDeleted(deleted);
  }

  #tellDeleted(session) {
    this.dispatchEvent(Object.assign(new Event('deleted'), { session }));
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
      this.#fail(problem);
    }
  }

  async #changing(call, done, news) {
    try {
      await call;
      announce(done);
      this.tell(news);
      await this.refresh();
      return true;
    } catch (problem) {
      this.#fail(problem);
      return false;
    }
  }

  #fail(problem) {
    this.dispatchEvent(Object.assign(new Event('trouble'), { problem }));
  }
}
