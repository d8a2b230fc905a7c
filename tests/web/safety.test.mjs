// Safety: what users and models write stays text, and the page asks nobody but its own server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answer, ended, place, say } from './harness.mjs';
import { PAYLOADS } from './payloads.mjs';

const here = place();

test('thirty payloads in messages, answers and titles stay text', async () => {
  const page = await here.enter();
  const foreign = [];
  page.on('request', (request) => {
    if (!request.url().startsWith(here.url) && !request.url().startsWith('blob:')) foreign.push(request.url());
  });
  assert.equal(PAYLOADS.length, 30);
  for (const payload of PAYLOADS) {
    await page.locator('#new-chat').click();
    // The model repeats it, so that it stands at the beginning of a line in the answer too.
    await say(page, `\n\n${payload}`);
    await ended(page);
    assert.equal(await page.locator('article.user .bubble').evaluate((bubble) => bubble.textContent), `\n\n${payload}`);
    await nothingRan(page, payload);
    for (const bait of await answer(page).locator('a').all()) {
      assert.match((await bait.getAttribute('href')) ?? 'https://nowhere', /^(https?|mailto):/, payload);
      if ((await bait.getAttribute('href')) === null) await bait.click();
    }
    await nothingRan(page, payload);
  }
  await page.reload();
  await page.locator('#sessions li').nth(29).waitFor();
  assert.equal(await page.locator('#sessions li').count(), 30);
  await nothingRan(page, 'titles');
  await page.getByRole('button', { name: /^Actions for/ }).first().click();
  await page.locator('#session-menu').getByRole('button', { name: 'Rename' }).click();
  await page.getByRole('textbox', { name: 'Title' }).fill(PAYLOADS[1]);
  await page.keyboard.press('Enter');
  await page.locator('#sessions').getByText(PAYLOADS[1], { exact: true }).first().waitFor();
  await nothingRan(page, 'a title');
  assert.deepEqual(foreign, []);
  assert.deepEqual(page.complaints, []);
});

async function nothingRan(page, payload) {
  assert.equal(await page.evaluate(() => window.hit), undefined, payload);
  const unwanted = page.locator('#messages, #sessions').locator('script, img, iframe, object, embed, style, link, base, meta, form, input, video, math, template, [onerror], [onload], [style]');
  assert.equal(await unwanted.count(), 0, payload);
}

test('the page runs no inline script and no foreign one', async () => {
  const answer = await fetch(here.url, { headers: { accept: 'text/html' } });
  const policy = answer.headers.get('content-security-policy');
  for (const rule of ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(rule), rule);
  }
  assert.ok(!policy.includes('unsafe'));
  const html = await answer.text();
  assert.ok(!/<script(?![^>]*\bsrc=)/.test(html) && !/\son\w+=/.test(html) && !/\sstyle=/.test(html));
  assert.ok(!/(src|href)="(https?:)?\/\//.test(html));
});

test('a visit and an answer with code weigh less than 150 kB', async () => {
  const page = await here.open();
  const sizes = [];
  page.on('requestfinished', async (request) => {
    if (/\/(assets\/.*)?$/.test(new URL(request.url()).pathname)) sizes.push(request.sizes());
  });
  await page.reload();
  await page.getByLabel('User id').fill('weigher');
  await page.keyboard.press('Enter');
  await say(page, '\n\n```js\nconst one = 1;\n```');
  await ended(page);
  await answer(page).locator('.hljs-keyword').waitFor();
  const bytes = (await Promise.all(sizes)).reduce((sum, size) => sum + size.responseBodySize + size.responseHeadersSize, 0);
  assert.ok(bytes > 20_000 && bytes < 150_000, `${bytes} bytes`);
});

test('the access token is kept in memory only', async () => {
  const page = await here.enter();
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert.ok(!/eyJ[\w-]+\.[\w-]+\.[\w-]+/.test(kept), 'a token stands in the storage');
});
