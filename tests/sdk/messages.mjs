// What Anthropic's official JavaScript SDK, and the AI SDK's provider for it in versions 5 to 7, need of `/v1/messages`: each function is a claim.
// The model server behind it plays the answers that tests/chat/sdks.rs lists, by the text of the message.
import assert from "node:assert/strict";

import { createAnthropic } from "@ai-sdk/anthropic";
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic as createAnthropic2 } from "ai-sdk-anthropic-2";
import { createAnthropic as createAnthropic3 } from "ai-sdk-anthropic-3";

import { all, refused, runAll } from "./checks.mjs";

const { BASE_URL, API_KEY } = process.env;
const model = "gemma3:1b";
const client = new Anthropic({ baseURL: BASE_URL.replace(/\/v1$/, ""), apiKey: API_KEY, maxRetries: 0 });
const said = (text, more = {}) => ({ model, max_tokens: 256, messages: [{ role: "user", content: text }], ...more });
const schema = { type: "object", properties: { city: { type: "string" } } };
const tool = { name: "weather", input_schema: schema };

const checks = {
  async a_whole_answer() {
    const { data, response } = await client.messages.create(said("hello")).withResponse();
    assert.equal(data.content[0].text, "You said: hello");
    assert.ok(data.usage.input_tokens > 0 && data.usage.output_tokens > 0);
    assert.ok(response.headers.get("ratelimit"));
  },

  async the_stream_helper_puts_the_answer_together() {
    const stream = client.messages.stream(said("Grüße 🙂"));
    assert.equal(await stream.finalText(), "You said: Grüße 🙂");
    const answer = await client.messages.stream(said("weather please", { tools: [tool] })).finalMessage();
    const calls = answer.content.filter((block) => block.type === "tool_use");
    assert.deepEqual(calls.map((call) => call.input.city), ["Köln", "Graz"]);
    assert.equal(answer.stop_reason, "tool_use");
    const thoughts = await client.messages.stream(said("think first")).finalMessage();
    assert.deepEqual(thoughts.content.map((block) => block.type), ["thinking", "text"]);
  },

  async counting_and_models() {
    const { input_tokens } = await client.messages.countTokens({ model, messages: said("hello").messages });
    assert.ok(input_tokens > 0);
    assert.ok((await all(client.models.list({ limit: 1 }))).some((one) => one.id === model));
    assert.equal((await client.models.retrieve(model)).type, "model");
  },

  async errors_have_their_classes() {
    const bad = new Anthropic({ baseURL: client.baseURL, apiKey: "cbk_wrong", maxRetries: 0 });
    await refused(Anthropic.AuthenticationError, () => bad.messages.create(said("hello")));
    const error = await refused(Anthropic.NotFoundError, () =>
      client.messages.create(said("hello", { model: "no/such:one", stream: true })),
    );
    assert.equal(error.error.error.type, "not_found_error");
    await refused(Anthropic.APIError, async () => all(await client.messages.create(said("crash in the middle", { stream: true }))));
  },

  async the_ai_sdk_generates_and_streams_text_thoughts_and_tools() {
    for (const create of [createAnthropic, createAnthropic3, createAnthropic2]) {
      const provider = create({ baseURL: BASE_URL, apiKey: API_KEY }).languageModel(model);
      const prompt = (text) => [{ role: "user", content: [{ type: "text", text }] }];
      const parts = async (text, more = {}) => all((await provider.doStream({ prompt: prompt(text), ...more })).stream);
      const join = (found, type) => found.filter((part) => part.type === type).map((part) => part.delta).join("");
      let found = await parts("think first");
      assert.deepEqual([join(found, "reasoning-delta"), join(found, "text-delta")], ["Hm.", "Yes."]);
      assert.ok(found.find((part) => part.type === "finish").usage);
      const tools = [{ type: "function", name: "weather", inputSchema: schema }];
      const cities = (found) =>
        found.filter((part) => part.type === "tool-call").map((call) => JSON.parse(call.input).city);
      assert.deepEqual(cities(await parts("weather please", { tools })), ["Köln", "Graz"]);
      found = await parts("crash in the middle");
      assert.ok(found.some((part) => part.type === "error"));
      const whole = async (text, more = {}) => (await provider.doGenerate({ prompt: prompt(text), ...more })).content;
      assert.equal((await whole("hello"))[0].text, "You said: hello");
      assert.deepEqual((await whole("think first")).map((part) => part.text), ["Hm.", "Yes."]);
      assert.deepEqual(cities(await whole("weather please", { tools })), ["Köln", "Graz"]);
    }
  },
};

await runAll(checks);
