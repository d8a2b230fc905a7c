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
