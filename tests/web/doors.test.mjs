// Doors: the way in where passwords are asked for and nobody may register.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { place } from './harness.mjs';

const here = place({ environment: { CHATBOT__AUTH__LOGIN: 'password', CHATBOT__AUTH__REGISTRATION: 'closed' } });

test('a password is asked for at once where login needs one', async () => {
  const page = await here.open();
  await page.getByLabel('User id').fill('nobody');
  await page.getByLabel('Password').fill('some pass phrase');
  await page.keyboard.press('Enter');
  await page.getByText('That user id and password do not fit').waitFor();
  assert.equal(await page.getByLabel('Message', { exact: true }).isVisible(), false);
});

test('a login that is no longer good is told', async () => {
  const page = await here.open();
  await page.evaluate(() => localStorage.setItem('chatbot.login', JSON.stringify({ user: 'ghost', refresh: 'no such token' })));
  await page.reload();
  await page.getByText('Your login has ended').waitFor();
});
