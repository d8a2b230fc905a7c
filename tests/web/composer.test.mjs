// The message box: what Send does, what is kept, and what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answer, ended, place, say, until, wordsOf } from './harness.mjs';

const here = place();
const box = (page) => page.getByLabel('Message', { exact: true });

test('a double click on Send sends, and does not stop the answer', async () => {
  const page = await here.enter();
  await box(page).fill('one two three');
  await page.locator('#send').dblclick();
  assert.match(await ended(page), /one two three/);
  assert.equal(await answer(page).getByText('Stopped').count(), 0);
});

test('right-to-left text is laid out right to left, code is not', async () => {
  const page = await here.enter();
  const directionOf = (selector) => page.locator(selector).last().evaluate((node) => getComputedStyle(node).direction);
  await box(page).fill('שלום עולם');
  assert.equal(await directionOf('#message'), 'rtl');
  await box(page).fill('שלום עולם\n\n- אחת\n- שתיים\n\n```\nשלום\n```\n\nplain English');
  await box(page).press('Enter');
  await ended(page);
  await until('the title', async () => (await page.locator('#title').innerText()).includes('שלום'));
  for (const selector of ['.bubble', '#title', '.session-title', '.prose ul']) assert.equal(await directionOf(selector), 'rtl', selector);
  for (const selector of ['.prose pre', '.prose > p']) assert.equal(await directionOf(selector), 'ltr', selector);
});
