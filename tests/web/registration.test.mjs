// Registration is closed: the page stops offering it once it knows.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { place } from './harness.mjs';

const here = place({ environment: { CHATBOT__AUTH__REGISTRATION: 'closed' } });

test('an account is no longer offered once registration was refused', async () => {
  const page = await here.open();
  const offer = page.getByRole('button', { name: 'Create an account' });
  await offer.click();
  await page.getByLabel('User id').fill('grace');
  await page.getByLabel('Password').fill('a long enough pass phrase');
  await page.keyboard.press('Enter');
  await page.getByText('Registration is closed here').waitFor();
  assert.equal(await page.locator('#switch').isVisible(), false);
  assert.equal(await page.locator('#entrance-title').innerText(), 'Welcome');
  await page.getByLabel('User id').press('Enter');
  await page.getByLabel('Message', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.getByLabel('User id').waitFor();
  assert.equal(await offer.count(), 0);
  assert.deepEqual(page.complaints, []);
});
