// What `ollama` for JavaScript needs of Ollama's API: each function is a claim.
// The model server behind it plays the answers that tests/chat/sdks.rs lists, by the text of the message.
import assert from "node:assert/strict";

import { Ollama } from "ollama";

import { refused as thrown, runAll } from "./checks.mjs";

const { ROOT_URL, API_KEY, LIMITED_URL, LIMITED_KEY } = process.env;
const model = "gemma3:1b";
const client = (host, key) => new Ollama({ host, headers: key ? { Authorization: `Bearer ${key}` } : {} });
const ollama = client(ROOT_URL, API_KEY);
const said = (content, more = {}) => ({ model, messages: [{ role: "user", content }], ...more });

async function refused(call, status) {
  const error = await thrown(Error, call);
  if (status) assert.equal(error.status_code, status, String(error));
  return error.message;
}

const weather = {
  type: "function",
  function: { name: "weather", description: "The weather.", parameters: { type: "object", properties: { city: { type: "string" } } } },
};

const checks = {
  async a_whole_answer() {
    const answer = await ollama.chat(said("hello"));
    assert.equal(answer.message.content, "You said: hello");
    assert.ok(answer.done && answer.eval_count > 0 && answer.prompt_eval_count > 0);
  },
  async a_streamed_answer() {
    let text = "";
    let last;
    for await (const part of await ollama.chat(said("Grüße 🙂", { stream: true }))) {
      text += part.message.content;
      last = part;
    }
    assert.equal(text, "You said: Grüße 🙂");
    assert.equal(last.done_reason, "stop");
  },
  async generate_and_thoughts() {
    assert.equal((await ollama.generate({ model, prompt: "hello" })).response, "You said: hello");
    const { message } = await ollama.chat(said("think first", { think: true }));
    assert.deepEqual([message.thinking, message.content], ["Hm.", "Yes."]);
  },
  async tools_go_both_ways() {
    const first = await ollama.chat(said("weather please", { tools: [weather] }));
    const calls = first.message.tool_calls;
    assert.deepEqual(calls.map((call) => call.function.arguments.city), ["Köln", "Graz"]);
    const results = calls.map((call) => ({ role: "tool", content: `sunny in ${call.function.arguments.city}`, tool_name: "weather" }));
    const messages = [...said("weather please").messages, first.message, ...results];
    const last = await ollama.chat({ model, messages, tools: [weather] });
    assert.equal(last.message.content, "You said: sunny in Graz");
  },
  async embeddings() {
    const { embeddings } = await ollama.embed({ model: "embed-small", input: ["Hello", "you"] });
    assert.deepEqual(embeddings, [[5, 72, 0.5], [3, 121, 0.5]]);
    const { embedding } = await ollama.embeddings({ model: "embed-small", prompt: "Hello" });
    assert.deepEqual(embedding, [5, 72, 0.5]);
  },
  async models() {
    assert.equal((await ollama.list()).models[0].name, model);
    assert.ok((await ollama.show({ model })).capabilities.includes("tools"));
    assert.equal((await ollama.ps()).models[0].name, model);
    assert.equal((await ollama.version()).version, "0.34.0");
  },
  async refusals() {
    await refused(() => ollama.chat({ ...said("x"), model: "nope" }), 404);
    assert.match(await refused(() => ollama.delete({ model }), 403), /operator/);
    assert.match(await refused(() => client(ROOT_URL).list(), 403), /OLLAMA_API_KEY/);
    await refused(() => client(ROOT_URL, "cbk_wrong").list(), 401);
    const limited = client(LIMITED_URL.replace(/\/v1$/, ""), LIMITED_KEY);
    await refused(async () => {
      for (;;) await limited.list();
    }, 429);
  },
  async a_failure_in_the_stream_is_thrown() {
    for (const text of ["crash in the middle", "cut in the middle"]) {
      const stream = await ollama.chat(said(text, { stream: true }));
      const message = await refused(async () => {
        for await (const part of stream) assert.equal(part.message.content, "half");
      });
      assert.doesNotMatch(message, /crashed/);
    }
  },
  async leaving_stops_the_model() {
    const stream = await ollama.chat(said("endless for ollama", { stream: true }));
    let parts = 0;
    await assert.rejects(async () => {
      for await (const _ of stream) if (++parts === 3) stream.abort();
    });
  },
};

await runAll(checks);
