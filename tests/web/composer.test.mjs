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

test('formulas come out as they were written', async () => {
  const page = await here.enter();
  const inline = ['$a_1 * b_2 * c_3$', '\\(x_i \\{y_j\\}\\)', '\\[e^{i\\pi} * 1 * 2\\]', '$$\\sum_{k} a_k * b_k * 2$$'];
  const block = '\\[\na_1\n= b_2\n+ c \\\\\n- d * e * f\n\\]';
  await say(page, `It is ${inline.join(' and ')}, for $5 or *ten* $10.\n\n${block}\n\nThe end.`);
  const shown = await ended(page);
  for (const formula of [...inline, block]) assert.ok(shown.includes(formula), `${formula} in ${shown}`);
  assert.deepEqual(await answer(page).locator('em').allInnerTexts(), ['ten']);
});

test('a text that is too long is kept, and the page says so', async () => {
  const page = await here.enter();
  const paste = (text) => box(page).evaluate((node, pasted) => {
    node.focus();
    node.select();
    document.execCommand('insertText', false, pasted);
  }, text);
  const send = page.getByRole('button', { name: 'Send' });
  await paste('a'.repeat(131_072 + 1_500));
  assert.equal((await box(page).inputValue()).length, 132_572);
  await page.getByText('1,500 characters too long').waitFor();
  assert.equal(await send.isDisabled(), true);
  await box(page).press('Enter');
  assert.equal(await page.locator('article').count(), 0);
  await paste('b'.repeat(131_072));
  assert.equal((await box(page).inputValue()).length, 131_072);
  await page.getByText('characters too long').waitFor({ state: 'hidden' });
  assert.equal(await send.isDisabled(), false);
});

test('each chat keeps its own draft, also over a reload', async () => {
  const page = await here.enter();
  await say(page, 'the first chat');
  await ended(page);
  await box(page).fill('draft for the first chat');
  await page.getByRole('button', { name: 'New chat' }).first().click();
  await until('an empty box', async () => (await box(page).inputValue()) === '');
  await box(page).fill('draft for a new chat');
  await page.locator('.session-title').click();
  await until('the first draft', async () => (await box(page).inputValue()) === 'draft for the first chat');
  await page.reload();
  await until('the first draft again', async () => (await box(page).inputValue()) === 'draft for the first chat');
  await box(page).press('Enter');
  await ended(page);
  await page.reload();
  await answer(page).waitFor();
  assert.equal(await box(page).inputValue(), '');
  await page.getByRole('button', { name: 'New chat' }).first().click();
  await until('the new chat\'s draft', async () => (await box(page).inputValue()) === 'draft for a new chat');
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('User id').waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});
