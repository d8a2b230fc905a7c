// Crashing: the server is killed in mid-answer and comes back; the page tells it and goes on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answer, ended, place, say, until, wordsOf } from './harness.mjs';

const here = place({ durable: true });
const NUMBERS = Array.from({ length: 120 }, (_, index) => `w${index}`).join(' ');

test('a server that dies in mid-answer is told, and the answer comes on demand', async () => {
  const page = await here.enter();
  await say(page, NUMBERS);
  await until('some words', async () => (await wordsOf(page)).includes('w20'));
  await here.crash();
  await answer(page).getByRole('alert').waitFor();
  assert.match(await answer(page).getByRole('alert').innerText(), /interrupted/);
  await page.getByRole('button', { name: 'Try again', exact: true }).click();
  assert.equal(await ended(page), `You said: ${NUMBERS}`);
  assert.equal(await page.locator('article').count(), 2);
  await page.reload();
  await answer(page).waitFor();
  assert.equal(await wordsOf(page), `You said: ${NUMBERS}`);
  assert.equal(await page.locator('article').count(), 2);
  assert.deepEqual(page.complaints, []);
});
