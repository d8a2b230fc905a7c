// Resuming: an answer survives a reload, a second tab, a lost connection and a token's end, whole and only once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answer, ended, place, say, secondTab, until, wordsOf } from './harness.mjs';

// Tokens this short are renewed every few seconds, in the middle of everything.
const here = place({ environment: { CHATBOT__AUTH__ACCESS_TTL: '13s' } });
const NUMBERS = Array.from({ length: 120 }, (_, index) => `w${index}`).join(' ');
const WHOLE = `You said: ${NUMBERS}`;

async function halfWay(page) {
  await until('half of the words', async () => (await wordsOf(page)).includes('w20'));
}

test('a reload in mid-answer ends with the whole text', async () => {
  const page = await here.enter();
  await say(page, NUMBERS);
  await halfWay(page);
  await page.reload();
  await answer(page).waitFor();
  assert.equal(await ended(page), WHOLE);
  assert.equal(await page.locator('article').count(), 2);
  await page.reload();
  await answer(page).waitFor();
  assert.equal(await wordsOf(page), WHOLE);
  assert.deepEqual(page.complaints, []);
});

test('a reload right after sending loses nothing and asks once', async () => {
  const page = await here.enter();
  await say(page, NUMBERS);
  await page.reload();
  await answer(page).waitFor();
  assert.equal(await ended(page), WHOLE);
  await page.reload();
  await answer(page).waitFor();
  assert.equal(await page.locator('article').count(), 2);
});

test('two tabs show one answer, each word once', async () => {
  const page = await here.enter();
  await say(page, NUMBERS);
  await halfWay(page);
  const tab = await secondTab(page);
  await answer(tab).waitFor();
  assert.equal(await ended(tab), WHOLE);
  assert.equal(await ended(page), WHOLE);
  // The next message goes out from the second tab; the first follows it without being touched.
  await say(tab, `${NUMBERS} again`);
  await until('the other tab follows', async () => (await page.locator('article').count()) === 4);
  assert.equal(await ended(page), `${WHOLE} again`);
  assert.equal(await ended(tab), `${WHOLE} again`);
  assert.equal(await tab.locator('article').count(), 4);
  assert.deepEqual([...page.complaints, ...tab.complaints], []);
});

test('a killed connection is taken up again after the last word that came', async () => {
  const page = await here.enter();
  const resumed = [];
  page.on('request', (request) => {
    if (request.url().endsWith('/stream')) resumed.push(request.headers()['last-event-id']);
  });
  await say(page, NUMBERS);
  await halfWay(page);
  here.proxy.cut();
  await until('the first resumption', () => resumed.length > 0);
  await until('more words', async () => (await wordsOf(page)).includes('w60'));
  here.proxy.cut();
  assert.equal(await ended(page), WHOLE);
  assert.ok(Number(resumed[0]) > 20, String(resumed));
});

test('a line that stays broken for a while is told, and mended', async () => {
  const page = await here.enter();
  await say(page, NUMBERS);
  await halfWay(page);
  here.proxy.breakOff();
  try {
    await answer(page).getByText('Connection lost').waitFor();
  } finally {
    here.proxy.mend();
  }
  assert.equal(await ended(page), WHOLE);
});

test('a message that finds no server is kept, and goes out on demand', async () => {
  const page = await here.enter();
  await say(page, 'first');
  await ended(page);
  here.proxy.breakOff();
  try {
    await say(page, 'second');
    await answer(page).getByRole('alert').waitFor();
    assert.match(await answer(page).getByRole('alert').innerText(), /cannot be reached/);
  } finally {
    here.proxy.mend();
  }
  await page.getByRole('button', { name: 'Try again', exact: true }).click();
  await until('the answer', async () => (await wordsOf(page)) === 'You said: second');
  assert.equal(await page.locator('article').count(), 4);
});

test('a message that never reached the server goes out after a reload', async () => {
  const page = await here.enter();
  await page.route('**/chat/message?*', (route) => route.abort());
  await say(page, 'patience');
  await answer(page).getByRole('alert').waitFor();
  await page.unroute('**/chat/message?*');
  await page.reload();
  await answer(page).waitFor();
  assert.equal(await ended(page), 'You said: patience');
  assert.equal(await page.locator('article').count(), 2);
});

test('tokens are renewed before they expire, in two tabs that do not steal each other\'s', async () => {
  const page = await here.enter();
  const tab = await secondTab(page);
  const refused = [];
  const renewed = [0, 0];
  [page, tab].forEach((one, index) =>
    one.on('response', (response) => {
      if (response.status() === 401) refused.push(response.url());
      if (response.url().endsWith('/auth/refresh')) renewed[index] += 1;
    }),
  );
  await until('three renewals each', () => renewed.every((count) => count >= 3));
  await say(page, 'still here');
  assert.equal(await ended(page), 'You said: still here');
  await say(tab, 'here too');
  assert.equal(await ended(tab), 'You said: here too');
  assert.deepEqual(refused, []);
});

test('logging out in one tab logs out the other, and leaves no token behind', async () => {
  const page = await here.enter();
  const tab = await secondTab(page);
  await tab.getByLabel('Message', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Log out' }).click();
  await tab.getByLabel('User id').waitFor();
  assert.equal(await page.evaluate(() => localStorage.getItem('chatbot.login')), null);
});

test('a chat that was deleted in one tab closes in the other', async () => {
  const page = await here.enter();
  await say(page, 'short-lived');
  await ended(page);
  const tab = await secondTab(page);
  await answer(tab).waitFor();
  await page.getByRole('button', { name: /^Actions for/ }).click();
  await page.locator('#session-menu').getByRole('button', { name: 'Delete' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await tab.locator('#sessions li').waitFor({ state: 'detached' });
  await until('the other tab is empty', async () => (await tab.locator('article').count()) === 0);
});
