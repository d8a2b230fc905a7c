// Entry point: connects login, sidebar, conversation and composer, and routes by the URL fragment.

import { Api } from './api.js';
import { Composer } from './composer.js';
import { showConnect } from './connect.js';
import { Conversation } from './conversation.js';
import { announce, el } from './dom.js';
import { Entrance } from './entrance.js';
import { Login } from './login.js';
import { Memory } from './memory.js';
import { Follower } from './scroll.js';
import { Sidebar } from './sidebar.js';
import { TurnNotes } from './turn.js';
import { showUsage } from './usage.js';

const THEMES = ['auto', 'light', 'dark'];
const byId = (id) => document.getElementById(id);

const memory = new Memory();
const login = new Login(memory);
const api = new Api(login);
const entrance = new Entrance(login);
const composer = new Composer(memory);
const sidebar = new Sidebar(api, memory);
const follower = new Follower(byId('pane'), byId('thread'), byId('jump'));
let conversation = null;

login.addEventListener('entered', enter);
login.addEventListener('left', () => {
  history.replaceState(null, '', '#/');
  leave('');
  composer.close({ forget: true });
});
login.addEventListener('ended', () => {
  leave('Your login has ended. Please log in again.');
  composer.close({ forget: false });
});
sidebar.addEventListener('open', ({ session }) => goTo(session));
sidebar.addEventListener('change', drawTitle);
sidebar.addEventListener('deleted', ({ session }) => {
  conversation?.forget(session);
  composer.discard(login.user, session);
  if (conversation && session === conversation.session) goTo(null);
});
sidebar.addEventListener('trouble', ({ problem }) => toast(`${problem.message}. ${problem.detail}`));
composer.addEventListener('send', ({ text }) => conversation?.send(text));
composer.addEventListener('stop', () => conversation?.stop());
byId('new-chat').addEventListener('click', () => goTo(null));
byId('new-chat-top').addEventListener('click', () => goTo(null));
byId('log-out').addEventListener('click', () => login.leave());
byId('connect').addEventListener('click', () => showConnect(api, composer.model() || 'MODEL'));
byId('theme').addEventListener('click', nextTheme);
byId('open-sidebar').addEventListener('click', () => showSidebar(true));
byId('scrim').addEventListener('click', () => showSidebar(false));
addEventListener('hashchange', route);
addEventListener('keydown', onKey);
drawTheme();
if (login.user) enter();
else leave('');

async function enter() {
  conversation?.close();
  document.body.dataset.view = 'chat';
  byId('who').textContent = login.user;
  const mine = new Conversation({ api, notes: new TurnNotes(memory, login.user), follower, choices: composer.choices });
  conversation = mine;
  mine.addEventListener('turn', () => conversation === mine && turnChanged());
  mine.addEventListener('begun', () => {
    history.pushState(null, '', `#/${mine.session}`);
    composer.open(login.user, mine.session);
    sidebar.select(mine.session);
    drawEmpty();
  });
  mine.addEventListener('accepted', () => {
    if (sidebar.titleOf(mine.session) === null) sidebar.refresh();
  });
  mine.addEventListener('gone', () => {
    toast('This chat was deleted.');
    sidebar.refresh();
    goTo(null);
  });
  route();
  api.models().then(({ models }) => composer.offerModels(models)).catch(() => composer.offerModels([]));
  refreshUsage();
  await sidebar.refresh();
  const session = mine.session;
  if (conversation === mine && session && !mine.turn && sidebar.titleOf(session) === null) sidebar.learn(session);
}

function leave(reason) {
  conversation?.close();
  conversation = null;
  sidebar.clear();
  showSidebar(false);
  document.title = 'Chat';
  document.body.dataset.view = 'entrance';
  entrance.show(reason);
}

function goTo(session) {
  const hash = session ? `#/${session}` : '#/';
  showSidebar(false);
  // At once: what is typed meanwhile would be lost with the chat before.
  if (location.hash !== hash) history.pushState(null, '', hash);
  route();
}

function route() {
  if (!conversation) return;
  const session = /^#\/([A-Za-z0-9._-]{1,64})$/.exec(location.hash)?.[1] ?? null;
  if (session !== conversation.session || session === null) conversation.open(session);
  composer.open(login.user, session);
  sidebar.select(session);
  drawEmpty();
  drawTitle();
  composer.focus();
}

/** An answer has begun or ended in the open chat. */
function turnChanged() {
  const running = Boolean(conversation.turn?.running);
  composer.answering = running;
  drawEmpty();
  if (running || !conversation.turn) return;
  sidebar.select(conversation.session);
  sidebar.tell();
  sidebar.refresh();
  refreshUsage();
}

function drawEmpty() {
  byId('welcome').hidden = conversation?.session !== null;
}

function drawTitle() {
  const session = conversation?.session;
  const title = (session && sidebar.titleOf(session)) || 'New chat';
  byId('title').textContent = title;
  document.title = `${title} · Chat`;
}

function refreshUsage() {
  api.usage().then((usage) => showUsage(byId('usage'), usage)).catch(() => {});
}

function onKey(event) {
  if (event.key !== 'Escape' || event.defaultPrevented || event.isComposing || document.querySelector('dialog[open], [popover]:popover-open')) return;
  if (document.body.classList.contains('sidebar-open')) showSidebar(false);
  else conversation?.stop();
}

function showSidebar(open) {
  document.body.classList.toggle('sidebar-open', open);
  byId('open-sidebar').setAttribute('aria-expanded', String(open));
  if (open) byId('new-chat').focus();
}

function nextTheme() {
  const now = memory.get('theme') ?? 'auto';
  memory.set('theme', THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  drawTheme();
}

function drawTheme() {
  const theme = memory.get('theme') ?? 'auto';
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const label = { auto: 'Colours: as the system', light: 'Colours: light', dark: 'Colours: dark' }[theme];
  byId('theme').setAttribute('aria-label', label);
  byId('theme').title = label;
}

function toast(text) {
  announce(text);
  const note = el('div', { class: 'toast' }, text);
  byId('toasts').append(note);
  setTimeout(() => note.remove(), 5000);
}
