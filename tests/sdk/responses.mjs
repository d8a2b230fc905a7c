// What the official JavaScript SDK and the AI SDK need of /v1/responses: each function is a claim.
// The model server behind it plays the answers that tests/chat/sdks.rs lists, by the text of the message.
import assert from "node:assert/strict";

import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { refused, runAll } from "./checks.mjs";

const { BASE_URL, API_KEY } = process.env;
const model = "gemma3:1b";
const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY, maxRetries: 0 });
const ask = (input, more = {}) => client.responses.create({ model, input, store: false, ...more });
const weather = {
  type: "function",
  name: "weather",
  strict: false,
  parameters: { type: "object", properties: { city: { type: "string" } } },
};
const provider = createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY });
const options = { openai: { store: false } };

const checks = {
  async a_whole_response() {
    const response = await ask("hello");
    assert.equal(response.output_text, "You said: hello");
    assert.ok(response.usage.total_tokens > 0);
  },

  async the_stream_helper_puts_the_response_together() {
    const stream = client.responses.stream({ model, input: "weather please", tools: [weather], store: false });
    const response = await stream.finalResponse();
    const cities = response.output.map((item) => JSON.parse(item.arguments).city);
    assert.deepEqual(cities, ["Köln", "Graz"]);
  },

  async a_schema_is_kept_to() {
    const animal = z.object({ name: z.string(), legs: z.number() });
    const response = await client.responses.parse({
      model, input: "as a schema", store: false, text: { format: zodTextFormat(animal, "animal") },
    });
    assert.deepEqual(response.output_parsed, { name: "cat", legs: 4 });
  },

  async errors_have_their_classes() {
    const bad = new OpenAI({ baseURL: BASE_URL, apiKey: "cbk_wrong", maxRetries: 0 });
    await refused(OpenAI.AuthenticationError, () => bad.responses.create({ model, input: "x" }));
    const error = await refused(OpenAI.BadRequestError, () => ask("hello", { previous_response_id: "resp_1" }));
    assert.deepEqual([error.code, error.param], ["previous_response_not_found", "previous_response_id"]);
  },

  async the_ai_sdk_generates_and_streams() {
    const { text } = await generateText({ model: provider(model), prompt: "hello", providerOptions: options });
    assert.equal(text, "You said: hello");
    const stream = streamText({ model: provider(model), prompt: "Grüße 🙂", providerOptions: options });
    let streamed = "";
    for await (const piece of stream.textStream) streamed += piece;
    assert.equal(streamed, "You said: Grüße 🙂");
    assert.ok((await stream.usage).totalTokens > 0);
  },

  async the_ai_sdk_runs_tools() {
    const { text } = await generateText({
      model: provider(model),
      prompt: "weather please",
      providerOptions: options,
      stopWhen: stepCountIs(3),
      tools: {
        weather: tool({ inputSchema: z.object({ city: z.string() }), execute: async () => "sunny" }),
      },
    });
    assert.match(text, /sunny/);
  },

  async the_ai_sdk_hears_of_a_failure() {
    let failure;
    const stream = streamText({
      model: provider(model), prompt: "crash in the middle", providerOptions: options, maxRetries: 0,
      onError: ({ error }) => (failure = error),
    });
    await stream.consumeStream({ onError: () => {} });
    assert.ok(failure);
  },
};

await runAll(checks);
