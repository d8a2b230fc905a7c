// The dialog that tells other programs how to connect.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { place } from './harness.mjs';

const here = place();

test('a key is made once and stands in the settings of every client', async () => {
  const page = await here.open();
  await page.getByLabel('User id').fill('connector');
  await page.keyboard.press('Enter');
  await page.getByLabel('Message', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Connect other programs' }).click();
  const dialog = page.getByRole('dialog');
  await dialog.getByText('curl', { exact: true }).click();
  const curl = dialog.locator('details', { hasText: 'curl' }).last().locator('pre');
  assert.match(await curl.innerText(), /YOUR_API_KEY/);
  await dialog.getByRole('button', { name: 'Make an API key' }).click();
  await dialog.getByText('It is shown this once').waitFor();
  await dialog.getByText('curl', { exact: true }).click();
  const command = await curl.innerText();
  const [, url, key] = command.match(/^curl (\S+) .*Bearer (cbk_[^']+)'/);
  assert.equal(url, `${new URL(page.url()).origin}/v1/chat/completions`);
  const response = await page.request.get(url.replace('chat/completions', 'models'), { headers: { Authorization: `Bearer ${key}` } });
  assert.equal(response.status(), 200);
  await page.keyboard.press('Escape');
  assert.equal(await dialog.count(), 0);
  assert.deepEqual(page.complaints, []);
});
