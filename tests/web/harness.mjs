// Starts what the end-to-end tests need (model server, chatbot, a proxy that can cut connections, Chromium) and ends it again.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before } from 'node:test';
import { chromium } from 'playwright-core';

const PATIENCE_MS = 20_000;
const ROOT = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '../..');
const BINARIES = path.join(path.resolve(ROOT, process.env.CARGO_TARGET_DIR ?? 'target'), 'debug');

/** One place for a file's end-to-end tests: `open()` gives a page in a browser of its own. */
export function place({ environment = {}, durable = false } = {}) {
  const here = { contexts: [] };
  before(async () => {
    here.directory = await mkdtemp(path.join(tmpdir(), 'chat-page-'));
    here.model = await modelServer();
    if (durable) environment.CHATBOT__STORE__URL = `embedded:${path.join(here.directory, 'store')}`;
    here.chat = await chatbot(here.directory, here.model.address, environment);
    here.proxy = await cuttableProxy(here.chat.address);
    here.url = `http://${here.proxy.address}/`;
    here.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    });
  });
  after(async () => {
    await here.browser?.close();
    here.proxy?.close();
    await here.chat?.stop();
    await here.model?.stop();
    if (here.directory) await rm(here.directory, { recursive: true, force: true });
  });
  /** Kills the server where it stands and starts another one; only a durable one remembers. */
  here.crash = async () => {
    await here.chat.stop();
    here.proxy.cut();
    here.chat = await chatbot(here.directory, here.model.address, environment);
    here.proxy.retarget(here.chat.address);
  };
  /** A browser profile of its own, with a page that is not logged in yet. */
  here.open = async (options = {}) => {
    const context = await here.browser.newContext({ viewport: { width: 1100, height: 800 }, reducedMotion: 'reduce', acceptDownloads: true, ...options });
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    watch(page);
    await page.goto(here.url);
    return page;
  };
  /** The same, logged in under a name that no other story uses. */
  here.enter = async (user = `user-${Math.random().toString(36).slice(2)}`, options = {}) => {
    const page = await here.open(options);
    await page.getByLabel('User id').fill(user);
    await page.keyboard.press('Enter');
    await page.getByLabel('Message', { exact: true }).waitFor();
    return page;
  };
  return here;
}

/** A second tab of the same browser profile. */
export async function secondTab(page) {
  const tab = await page.context().newPage();
  watch(tab);
  await tab.goto(page.url());
  return tab;
}

/** Whatever the page complains about on its own account: errors, and what its policy has refused. */
function watch(page) {
  page.complaints = [];
  page.on('pageerror', (error) => page.complaints.push(error.message));
  page.on('dialog', (dialog) => {
    page.complaints.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('console', (message) => {
    if (/Content.Security.Policy|Trusted ?Type|Uncaught/i.test(message.text())) page.complaints.push(message.text());
  });
}

export async function say(page, text) {
  const box = page.getByLabel('Message', { exact: true });
  await box.fill(text);
  await box.press('Enter');
}

/** The newest answer. */
export function answer(page) {
  return page.locator('article.answer').last();
}

/** The newest answer's text, once it has ended well. */
export async function ended(page) {
  await page.locator('article.answer[aria-busy="true"]').first().waitFor({ state: 'detached' });
  const trouble = await answer(page).getByRole('alert').allInnerTexts();
  if (trouble.length > 0) throw new Error(`the answer failed: ${trouble.join(' ')}`);
  return wordsOf(page);
}

export function wordsOf(page) {
  return answer(page).locator('.prose').innerText();
}

export async function until(what, condition) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

async function modelServer() {
  const child = start('fake-ollama', ['127.0.0.1:0'], { FAKE_OLLAMA_PAUSE_MS: '20' });
  const line = await child.says(/listens on (\S+)/);
  return { address: line[1], stop: child.stop };
}

async function chatbot(directory, model, environment) {
  const child = start('chatbot', [], {
    CHATBOT__STORE__URL: 'memory:',
    CHATBOT__AUTH__LISTEN: '127.0.0.1:0',
    CHATBOT__AUTH__ADMIN_LISTEN: '127.0.0.1:0',
    CHATBOT__AUTH__KEYS_DIR: path.join(directory, 'keys'),
    CHATBOT__CHAT__LISTEN: '127.0.0.1:0',
    CHATBOT__CHAT__ADMIN_LISTEN: '127.0.0.1:0',
    CHATBOT__LLM__PROVIDERS: 'ollama',
    CHATBOT__RATE_LIMIT__REQUESTS: '1000',
    CHATBOT__TELEMETRY__LOG_FORMAT: 'json',
    OLLAMA_HOST: model,
    ...environment,
  });
  const address = await child.finds((line) => {
    const { message, service, address, admin, fields } = parsed(line);
    const said = fields ?? { message, service, address, admin };
    return said.message === 'listening' && said.service === 'chat' && String(said.admin) === 'false' && said.address;
  });
  await until('the service is ready', async () => (await fetch(`http://${address}/readyz`).catch(() => null))?.ok);
  return { address, stop: child.stop };
}

function parsed(line) {
  try {
    return JSON.parse(line) ?? {};
  } catch {
    return {};
  }
}

function start(binary, args, environment) {
  const child = spawn(path.join(BINARIES, binary), args, { env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  const lines = [];
  for (const stream of [child.stdout, child.stderr]) {
    let rest = '';
    stream.setEncoding('utf8').on('data', (text) => {
      const parts = (rest + text).split('\n');
      rest = parts.pop();
      lines.push(...parts);
    });
  }
  let failure = null;
  child.on('error', (error) => (failure = `${error.message}: run cargo build --workspace --bins first`));
  child.on('exit', (code) => (failure ??= `${binary} ended with ${code}:\n${lines.join('\n')}`));
  const finds = (look) =>
    until(`${binary} has started`, () => {
      if (failure) throw new Error(failure);
      for (const line of lines) {
        const found = look(line);
        if (found) return found;
      }
      return null;
    });
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
  };
  return { finds, says: (pattern) => finds((line) => pattern.exec(line)), stop };
}

/** Passes bytes on to `target` until somebody cuts the line. */
async function cuttableProxy(target) {
  let [host, port] = target.split(':');
  const sockets = new Set();
  let open = true;
  const server = net.createServer((near) => {
    if (!open) return near.destroy();
    const far = net.connect(Number(port), host);
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.on('error', () => {});
      one.on('close', () => {
        sockets.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
    return undefined;
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => sockets.forEach((socket) => socket.destroy());
  return {
    retarget: (to) => {
      [host, port] = to.split(':');
    },
    address: `127.0.0.1:${server.address().port}`,
    cut,
    /** Cuts every connection and refuses new ones until `mend`. */
    breakOff: () => {
      open = false;
      cut();
    },
    mend: () => {
      open = true;
    },
    close: () => {
      cut();
      server.close();
    },
  };
}
