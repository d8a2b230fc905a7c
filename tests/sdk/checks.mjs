// What the checks of all JavaScript SDKs share.
import assert from "node:assert/strict";

export async function refused(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.ok(error instanceof kind, `${error?.constructor?.name}: ${error}`);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

export async function all(stream) {
  const found = [];
  for await (const one of stream) found.push(one);
  return found;
}

export async function run(name, check) {
  const start = Date.now();
  try {
    await check();
  } catch (error) {
    console.log("FAILED", name, error?.stack ?? error);
    return false;
  }
  console.log("ok", name, `${(Date.now() - start) / 1000}s`);
  return true;
}

// Each function of `checks` is a claim; they run one after another.
export async function runAll(checks) {
  const passed = [];
  for (const [name, check] of Object.entries(checks)) passed.push(await run(name, check));
  process.exit(passed.every(Boolean) ? 0 : 1);
}
