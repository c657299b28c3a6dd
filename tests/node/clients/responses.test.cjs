// Responses through the official client for Node: a second run calls no model and gives the same.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const OpenAI = require("openai");
const { zodTextFormat } = require("openai/helpers/zod");
const { z } = require("zod");
const { url, bothRuns } = require("./served.cjs");

const client = new OpenAI({ baseURL: url, apiKey: "unused", maxRetries: 0, timeout: 120_000 });
const model = "gpt-5-node";
const parameters = { type: "object", properties: {} };
const cases = {
  words: { input: "tell me" },
  tools: { input: "call a tool", tools: [{ type: "function", name: "weather", parameters, strict: false }] },
  refusal: { input: "refuse" },
};

for (const [name, body] of Object.entries(cases)) {
  test(`create: ${name}`, async () => {
    const [first, second] = await bothRuns(() => client.responses.create({ model, ...body }));
    assert.deepEqual(second, first);
  });

  test(`stream: ${name}`, async () => {
    // A request of its own, so that its miss is a stream.
    const asked = { model, ...body, metadata: { form: "stream" } };
    const [first, second] = await bothRuns(async () => {
      const stream = client.responses.stream(asked);
      let deltas = 0;
      for await (const event of stream) deltas += event.type.endsWith(".delta");
      assert.ok(deltas >= 1);
      return stream.finalResponse();
    });
    assert.deepEqual(second, first);
  });
}

test("the events of a created stream", async () => {
  const [first, second] = await bothRuns(async () => {
    const pieces = [];
    for await (const event of await client.responses.create({ model, input: "as events", stream: true })) {
      if (event.type === "response.output_text.delta") pieces.push(event.delta);
    }
    assert.ok(pieces.length > 3);
    return pieces.join("");
  });
  assert.equal(second, first);
});

test("parse", async () => {
  const journey = z.object({ city: z.string(), days: z.number() });
  const asked = { model, input: "where to?", text: { format: zodTextFormat(journey, "journey") } };
  const [first, second] = await bothRuns(async () => (await client.responses.parse(asked)).output_parsed);
  assert.equal(first.city, "La Coruña");
  assert.deepEqual(second, first);
});

test("a conversation goes on from a cached turn", async () => {
  const [first, cached] = await bothRuns(() => client.responses.create({ model, input: "Remember this" }));
  assert.equal(cached.id, first.id);
  const second = await client.responses.create({ model, input: "What was it?", previous_response_id: cached.id });
  assert.ok(second.output_text.includes(`after ${first.id}`));
});
