// What the official JavaScript SDK, and one that UIs are built on, need of the endpoint: each function is a claim.
// The model server behind it plays the answers that tests/chat/sdks.rs lists, by the text of the message.
import assert from "node:assert/strict";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { all, refused, run } from "./checks.mjs";

const { BASE_URL, API_KEY, ADMIN_URL, LIMITED_URL, LIMITED_KEY } = process.env;
const model = "gemma3:1b";
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const said = (text, more = {}) => ({ model, messages: [{ role: "user", content: text }], ...more });
const ask = (text, more) => client.chat.completions.create(said(text, more));
const tool = {
  type: "function",
  function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};

const textOf = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

async function running() {
  const text = await (await fetch(`${ADMIN_URL}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith("llm_running"));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").pop()), 0);
}

// The first is alone: it looks at what runs.
const checks = {
  async leaving_stops_the_model() {
    for (const leave of ["break", "abort"]) {
      const stream = await ask("endless for javascript", { stream: true });
      let number = 0;
      for await (const _ of stream) {
        if (++number < 4) continue;
        assert.equal(await running(), 1);
        if (leave === "abort") stream.controller.abort();
        break;
      }
      const start = Date.now();
      while ((await running()) > 0) assert.ok(Date.now() - start < 1000, "the model runs on");
    }
  },

  async embeddings() {
    for (const more of [{}, { encoding_format: "float" }]) {
      const answer = await client.embeddings.create({ model: "embed-small", input: ["Hello", "you"], ...more });
      assert.deepEqual(answer.data.map((entry) => [...entry.embedding]), [[5, 72, 0.5], [3, 121, 0.5]]);
      assert.equal(answer.usage.total_tokens, 4);
    }
  },
  async a_whole_answer() {
    const { data, response } = await client.chat.completions.create(said("hello")).withResponse();
    assert.equal(data.choices[0].message.content, "You said: hello");
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.ok(data._request_id);
    assert.ok(response.headers.get("ratelimit"));
  },

  async a_streamed_answer() {
    const chunks = await all(await ask("Grüße 🙂", { stream: true, stream_options: { include_usage: true } }));
    assert.equal(textOf(chunks), "You said: Grüße 🙂");
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
    assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
    assert.equal(textOf(await all(await ask("nothing at all", { stream: true }))), "");
  },

  async the_stream_helper_puts_the_answer_together() {
    const runner = client.chat.completions.stream(said("weather please", { tools: [tool] }));
    const answer = await runner.finalChatCompletion();
    const cities = answer.choices[0].message.tool_calls.map((call) => JSON.parse(call.function.arguments).city);
    assert.deepEqual(cities, ["Köln", "Graz"]);
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
  },

  async tools_are_run_to_the_end() {
    const runner = client.chat.completions.runTools({
      ...said("weather please"),
      tools: [{ ...tool, function: { ...tool.function, function: () => "sunny", parse: JSON.parse } }],
    });
    assert.equal(await runner.finalContent(), "You said: sunny");
  },

  async a_schema_is_kept_to() {
    const animal = z.object({ name: z.string(), legs: z.number() });
    const answer = await client.chat.completions.parse(
      said("as a schema", { response_format: zodResponseFormat(animal, "animal") }),
    );
    assert.deepEqual(answer.choices[0].message.parsed, { name: "cat", legs: 4 });
  },

  async models() {
    const ids = [];
    for await (const one of client.models.list()) ids.push(one.id);
    assert.ok(ids.includes(model));
    for (const id of [model, "hf.co/org/name:Q4_K_M"]) assert.equal((await client.models.retrieve(id)).id, id);
    const error = await refused(OpenAI.NotFoundError, () => client.models.retrieve("no/such:one"));
    assert.equal(error.code, "model_not_found");
  },

  async errors_have_their_classes() {
    const bad = new OpenAI({ baseURL: BASE_URL, apiKey: "cbk_wrong", maxRetries: 0 });
    let error = await refused(OpenAI.AuthenticationError, () => bad.models.list());
    assert.equal(error.code, "invalid_token");
    assert.ok(error.requestID);
    error = await refused(OpenAI.NotFoundError, () => ask("hello", { model: "no/such:one", stream: true }));
    assert.deepEqual([error.code, error.param], ["model_not_found", "model"]);
    error = await refused(OpenAI.BadRequestError, () => ask("hello", { n: 2 }));
    assert.deepEqual([error.code, error.param, error.type], ["invalid_request", "n", "invalid_request_error"]);
  },

  async a_failure_in_the_stream_is_raised() {
    for (const text of ["crash in the middle", "cut in the middle"]) {
      const stream = await ask(text, { stream: true });
      const error = await refused(OpenAI.APIError, () => all(stream));
      assert.equal(error.code, "llm_failed");
    }
  },

  async a_failing_server_is_tried_three_times() {
    const error = await refused(OpenAI.InternalServerError, () =>
      client.chat.completions.create(said("broken for javascript"), { maxRetries: 2 }),
    );
    assert.equal(error.status, 502);
  },

  async a_quota_is_not_tried_again() {
    let tries = 0;
    const counting = (...request) => (tries++, fetch(...request));
    const limited = new OpenAI({ baseURL: LIMITED_URL, apiKey: LIMITED_KEY, maxRetries: 2, fetch: counting });
    const body = said("hello", { max_tokens: 50 });
    const error = await refused(OpenAI.RateLimitError, () => limited.chat.completions.create(body));
    assert.deepEqual([error.code, tries], ["quota_exceeded", 1]);
  },

  async signs_of_life_do_not_disturb() {
    assert.equal(textOf(await all(await ask("slowly for javascript", { stream: true }))), "one two");
  },

  async the_ai_sdk_streams_text_thoughts_and_tools() {
    const provider = createOpenAICompatible({
      name: "chat", baseURL: BASE_URL, apiKey: API_KEY, includeUsage: true,
    });
    const prompt = (text) => [{ role: "user", content: [{ type: "text", text }] }];
    const parts = async (text, more = {}) => {
      const { stream } = await provider.chatModel(model).doStream({ prompt: prompt(text), ...more });
      return all(stream);
    };
    const join = (found, type) => found.filter((part) => part.type === type).map((part) => part.delta).join("");
    let found = await parts("think first");
    assert.deepEqual([join(found, "reasoning-delta"), join(found, "text-delta")], ["Hm.", "Yes."]);
    assert.ok(found.find((part) => part.type === "finish").usage);
    found = await parts("weather please", { tools: [{ type: "function", ...tool.function, inputSchema: tool.function.parameters }] });
    const calls = found.filter((part) => part.type === "tool-call");
    assert.deepEqual(calls.map((call) => JSON.parse(call.input).city), ["Köln", "Graz"]);
    found = await parts("crash in the middle");
    assert.ok(found.some((part) => part.type === "error"));
    const whole = await provider.chatModel(model).doGenerate({ prompt: prompt("hello") });
    assert.equal(whole.content[0].text, "You said: hello");
  },
};

const { leaving_stops_the_model, signs_of_life_do_not_disturb, ...others } = checks;
const passed = [await run("leaving_stops_the_model", leaving_stops_the_model)];
const longest = run("signs_of_life_do_not_disturb", signs_of_life_do_not_disturb);
for (const [name, check] of Object.entries(others)) passed.push(await run(name, check));
passed.push(await longest);
process.exit(passed.every(Boolean) ? 0 : 1);
