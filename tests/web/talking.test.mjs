// Talking: log in, say something, read the answer as it grows, stop it, ask again, keep order among the chats.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { answer, ended, place, say, until, wordsOf } from './harness.mjs';

const here = place();

test('a user id and Enter are enough where login is open', async () => {
  const page = await here.open();
  await page.keyboard.type('ada');
  await page.keyboard.press('Enter');
  await page.getByLabel('Message', { exact: true }).waitFor();
  assert.equal(await page.locator('#who').innerText(), 'ada');
  assert.deepEqual(page.complaints, []);
});

test('an account with a password is made, left, and entered again', async () => {
  const page = await here.open();
  await page.getByRole('button', { name: 'Create an account' }).click();
  await page.getByLabel('User id').fill('grace');
  await page.getByLabel('Password').fill('a long enough pass phrase');
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('User id').fill('grace');
  await page.keyboard.press('Enter');
  await page.getByText('This account has a password').waitFor();
  await page.getByLabel('Password').fill('something else altogether');
  await page.keyboard.press('Enter');
  await page.getByText('do not fit').waitFor();
  await page.getByLabel('Password').fill('a long enough pass phrase');
  await page.keyboard.press('Enter');
  await page.getByLabel('Message', { exact: true }).waitFor();
});

test('an answer grows word by word and is read as Markdown', async () => {
  const page = await here.enter();
  await say(page, '\n\n**bold** and `code`, ' + 'then on and on '.repeat(20));
  const some = await until('the first words', () => wordsOf(page));
  assert.ok(await answer(page).getAttribute('aria-busy') === 'true' && some.length > 0);
  const whole = await ended(page);
  assert.ok(whole.startsWith('You said:') && whole.endsWith('then on and on'), whole);
  assert.equal(await answer(page).locator('strong').innerText(), 'bold');
  assert.equal(await page.locator('#sessions li').count(), 1);
  assert.match(await answer(page).locator('.meta').innerText(), /tokens/);
  assert.deepEqual(page.complaints, []);
});

test('Enter sends, Shift and Enter begins a line', async () => {
  const page = await here.enter();
  const box = page.getByLabel('Message', { exact: true });
  await box.focus();
  await page.keyboard.type('one');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('two');
  assert.equal(await box.inputValue(), 'one\ntwo');
  await page.keyboard.press('Enter');
  assert.equal(await box.inputValue(), '');
  assert.equal(await page.locator('article.user .bubble').innerText(), 'one\ntwo');
});

for (const [how, stop] of [
  ['the button', (page) => page.getByRole('button', { name: 'Stop' }).click()],
  ['Escape', (page) => page.keyboard.press('Escape')],
]) {
  test(`${how} stops an answer, and what was said stays`, async () => {
    const page = await here.enter();
    await say(page, '!endless');
    await until('some words', async () => (await wordsOf(page)).split(' ').length > 5);
    await stop(page);
    const said = await ended(page);
    assert.match(said, /^more more/);
    await answer(page).getByText('Stopped.').waitFor();
    await page.getByRole('button', { name: 'Send' }).waitFor();
    await page.reload();
    await answer(page).waitFor();
    assert.match(await wordsOf(page), /^more more/);
  });
}

test('another answer takes the place of the last', async () => {
  const page = await here.enter();
  await say(page, 'twice, please');
  const first = await ended(page);
  await page.getByRole('button', { name: 'Answer again' }).click();
  await answer(page).and(page.locator('[aria-busy="true"]')).waitFor();
  assert.equal(await ended(page), first);
  assert.equal(await page.locator('article.answer').count(), 1);
  await page.reload();
  await answer(page).waitFor();
  assert.equal(await page.locator('article').count(), 2);
});

test('thoughts are folded, and open on demand', async () => {
  const page = await here.enter();
  await say(page, '!think');
  assert.equal(await ended(page), 'I have thought.');
  const thoughts = answer(page).locator('.thoughts');
  assert.equal(await thoughts.isVisible(), false);
  await answer(page).locator('summary').click();
  assert.equal(await thoughts.innerText(), 'Let me see.');
});

test('a failure is told in words, and tried again on demand', async () => {
  const page = await here.enter();
  await say(page, '!fail');
  await answer(page).getByRole('alert').waitFor();
  assert.equal(await answer(page).getByRole('alert').locator('strong').innerText(), 'The model stopped in the middle');
  await page.getByRole('button', { name: 'Try again', exact: true }).click();
  await answer(page).getByRole('alert').waitFor();
  assert.equal(await page.locator('article').count(), 2);
});

test('after a failure another model can be asked', async () => {
  const page = await here.enter();
  await until('the models', async () => (await page.locator('#model option').count()) > 1);
  await say(page, '!fail');
  await answer(page).getByRole('alert').waitFor();
  await page.getByLabel('Model').selectOption({ index: 1 });
  const asked = page.waitForRequest((request) => request.method() === 'POST' && request.url().includes('/regenerate'));
  await page.getByRole('button', { name: 'Try again', exact: true }).click();
  assert.equal((await asked).postDataJSON().model, await page.getByLabel('Model').inputValue());
  await answer(page).getByRole('alert').waitFor();
  assert.equal(await page.locator('article').count(), 2);
});

test('chats are renamed, exported and deleted', async () => {
  const page = await here.enter();
  await say(page, 'first of all');
  await ended(page);
  const menu = async (choice) => {
    await page.getByRole('button', { name: /^Actions for/ }).click();
    await page.locator('#session-menu').getByRole('button', { name: choice }).click();
  };
  await menu('Rename');
  await page.getByRole('textbox', { name: 'Title' }).fill('A better title');
  await page.keyboard.press('Enter');
  await page.locator('#sessions').getByText('A better title').waitFor();
  assert.equal(await page.locator('#title').innerText(), 'A better title');
  const coming = page.waitForEvent('download');
  await menu('Export');
  const download = await coming;
  assert.equal(download.suggestedFilename(), 'A-better-title.json');
  assert.ok((await readFile(await download.path(), 'utf8')).includes('first of all'));
  await menu('Delete');
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await page.locator('#sessions li').waitFor({ state: 'detached' });
  assert.equal(await page.locator('article').count(), 0);
  assert.deepEqual(page.complaints, []);
});

test('each chat keeps its own messages, and answers go on while another is read', async () => {
  const page = await here.enter();
  await say(page, `slowly ${'word '.repeat(60)}`);
  await until('some words', () => wordsOf(page));
  await page.locator('#new-chat').click();
  assert.equal(await page.locator('article').count(), 0);
  await say(page, 'meanwhile');
  assert.equal(await ended(page), 'You said: meanwhile');
  await page.locator('#sessions').getByText('slowly').click();
  await page.locator('article.user').getByText('slowly').waitFor();
  await answer(page).waitFor();
  assert.equal((await ended(page)).match(/word/g).length, 60);
  assert.equal(await page.locator('article').count(), 2);
});

test('a model is chosen by name', async () => {
  const page = await here.enter();
  const names = page.locator('#model option');
  await until('the models', async () => (await names.count()) > 1);
  const name = await names.nth(1).getAttribute('value');
  await page.getByLabel('Model').selectOption(name);
  const asked = page.waitForRequest((request) => request.url().includes('/chat/message'));
  await say(page, 'hello');
  assert.equal((await asked).postDataJSON().model, name);
  await ended(page);
  assert.ok((await answer(page).locator('.meta').innerText()).includes(name));
});

test('a reader who scrolls up is left in peace, and finds the way back', async () => {
  const page = await here.enter();
  await say(page, 'a line of its own\n\n'.repeat(30));
  await ended(page);
  await say(page, '!endless');
  await until('some words', async () => (await wordsOf(page)).length > 100);
  const pane = page.locator('#pane');
  await pane.hover();
  await page.mouse.wheel(0, -600);
  await page.getByRole('button', { name: 'To the newest message' }).waitFor();
  const top = await pane.evaluate((element) => element.scrollTop);
  const length = (await wordsOf(page)).length;
  await until('more words', async () => (await wordsOf(page)).length > length + 400);
  assert.equal(await pane.evaluate((element) => element.scrollTop), top);
  await page.getByRole('button', { name: 'To the newest message' }).click();
  await until('the end', () => pane.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight < 60));
  await page.keyboard.press('Escape');
  await ended(page);
});
