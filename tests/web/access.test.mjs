// Access: keyboard, screen readers, dark and light, phones.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { answer, ended, place, say } from './harness.mjs';

const here = place();
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RICH = '\n\n## Heading\n\n- [x] done\n- [the docs](https://example.org)\n\n> said\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\n```rust\nfn main() { /* nothing */ }\n```\n\nand the end';

async function findings(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' ')}`);
}

for (const colorScheme of ['light', 'dark']) {
  test(`axe finds nothing serious, ${colorScheme}`, async () => {
    const page = await here.open({ colorScheme, bypassCSP: true });
    assert.deepEqual(await findings(page), []);
    await page.getByLabel('User id').fill(`reader-${colorScheme}`);
    await page.keyboard.press('Enter');
    await page.getByLabel('Message', { exact: true }).waitFor();
    assert.deepEqual(await findings(page), []);
    await say(page, RICH);
    await ended(page);
    await answer(page).locator('.hljs-keyword').waitFor();
    await say(page, '!think');
    await ended(page);
    await say(page, '!fail');
    await answer(page).getByRole('alert').waitFor();
    assert.deepEqual(await findings(page), []);
    await page.getByRole('button', { name: /^Actions for/ }).click();
    assert.deepEqual(await findings(page), []);
    await page.locator('#session-menu').getByRole('button', { name: 'Delete' }).click();
    assert.deepEqual(await findings(page), []);
  });
}

test('everything is done with the keyboard alone', async () => {
  const page = await here.open();
  await page.keyboard.type('typist');
  await page.keyboard.press('Enter');
  await page.getByLabel('Message', { exact: true }).waitFor();
  await page.keyboard.type('by keyboard');
  await page.keyboard.press('Enter');
  await ended(page);
  const more = page.getByRole('button', { name: /^Actions for/ });
  await more.focus();
  await page.keyboard.press('Enter');
  await page.keyboard.press('Escape');
  assert.ok(await more.evaluate((button) => button === document.activeElement), 'the focus goes back');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.type('Renamed by keyboard');
  await page.keyboard.press('Enter');
  await page.locator('#sessions').getByText('Renamed by keyboard').waitFor();
});

test('a screen reader hears that an answer is complete', async () => {
  const page = await here.enter();
  await say(page, 'hello');
  await page.getByRole('status').getByText('The answer is complete.').waitFor({ state: 'attached' });
});

test('on a phone nothing sticks out, and the chats are a drawer', async () => {
  const page = await here.enter('caller', { viewport: { width: 360, height: 700 }, isMobile: true, hasTouch: true });
  await say(page, `${RICH} ${'x'.repeat(300)}`);
  await ended(page);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  assert.equal(await page.locator('#sidebar').isVisible(), false);
  await page.getByRole('button', { name: 'Chats' }).tap();
  await page.locator('#sessions li').waitFor();
  await page.locator('#sessions .session-title').tap();
  await page.locator('#sidebar').waitFor({ state: 'hidden' });
});
