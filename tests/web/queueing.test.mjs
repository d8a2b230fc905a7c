// Queueing and paging: what a reader sees who has to wait, and who has said a great deal.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answer, ended, place, say, until, wordsOf } from './harness.mjs';

const here = place({ environment: { CHATBOT__LLM__OLLAMA__MAX_CONCURRENCY: '1' } });

test('who waits sees the place in the queue, and then the answer', async () => {
  const [first, second, third] = [await here.enter(), await here.enter(), await here.enter()];
  await say(first, '!endless');
  await until('the first answer', () => wordsOf(first));
  await say(second, 'second');
  await answer(second).getByText('you are next').waitFor();
  await say(third, 'third');
  await answer(third).getByText('one other waits before you').waitFor();
  await first.getByRole('button', { name: 'Stop' }).click();
  assert.equal(await ended(second), 'You said: second');
  assert.equal(await ended(third), 'You said: third');
});

test('an answer is stopped while it waits', async () => {
  const [first, second] = [await here.enter(), await here.enter()];
  await say(first, '!endless');
  await until('the first answer', () => wordsOf(first));
  await say(second, 'never mind');
  await answer(second).getByText('you are next').waitFor();
  await second.keyboard.press('Escape');
  await answer(second).getByText('Stopped before it began.').waitFor();
  await first.keyboard.press('Escape');
  await ended(first);
  await second.reload();
  await second.getByRole('button', { name: 'Get an answer' }).click();
  await until('the answer', async () => (await second.locator('article.answer').count()) === 1 && (await wordsOf(second)) === 'You said: never mind');
});

test('a long chat is read page by page, without losing the place', async () => {
  const page = await here.enter('talker');
  const login = await fetch(`${here.url}auth/login`, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ user_id: 'talker' }) });
  const { access_token: token } = await login.json();
  const headers = { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' };
  for (let turn = 0; turn < 30; turn += 1) {
    const said = await fetch(`${here.url}chat/message`, { method: 'POST', headers, body: JSON.stringify({ session_id: 'long', message: `m${turn}` }) });
    assert.equal(said.status, 200);
  }
  await page.goto(`${here.url}#/long`);
  await page.reload();
  await until('the newest page', async () => (await page.locator('article').count()) === 50);
  assert.equal(await wordsOf(page), 'You said: m29');
  const pane = page.locator('#pane');
  await pane.evaluate((element) => (element.scrollTop = 200));
  const place = () => page.locator('article.user', { hasText: 'm7' }).evaluate((element) => element.getBoundingClientRect().top);
  const before = await place();
  await page.getByRole('button', { name: 'Show earlier messages' }).evaluate((button) => button.click());
  await until('all messages', async () => (await page.locator('article').count()) === 60);
  assert.ok(Math.abs((await place()) - before) < 60, 'nothing has moved');
  assert.equal(await page.locator('article.user').first().innerText(), 'm0');
  await page.getByRole('button', { name: 'To the newest message' }).waitFor();
});
