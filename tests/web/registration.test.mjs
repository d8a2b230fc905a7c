// Registration is closed: the page does not offer it, and stops offering it where it closes later.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { place } from './harness.mjs';

const here = place({ environment: { CHATBOT__AUTH__REGISTRATION: 'closed' } });

test('an account is not offered where registration is closed', async () => {
  const page = await here.open();
  await page.getByText('Choose a user id to begin.').waitFor();
  assert.equal(await page.locator('#switch').isVisible(), false);
  assert.deepEqual(page.complaints, []);
});

test('an account is no longer offered once registration was refused', async () => {
  const page = await here.open();
  const stale = { login: 'open', registration: 'open' };
  await page.route('**/auth/settings', (route) => route.fulfill({ json: stale }));
  await page.reload();
  await page.getByRole('button', { name: 'Create an account' }).click();
  await page.getByLabel('User id').fill('grace');
  await page.getByLabel('Password').fill('a long enough pass phrase');
  await page.keyboard.press('Enter');
  await page.getByText('Registration is closed here').waitFor();
  assert.equal(await page.locator('#switch').isVisible(), false);
  assert.equal(await page.locator('#entrance-title').innerText(), 'Welcome');
  await page.getByLabel('User id').press('Enter');
  await page.getByLabel('Message', { exact: true }).waitFor();
  assert.deepEqual(page.complaints, []);
});
