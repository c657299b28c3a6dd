// Messages through Anthropic's own client for Node: a second run calls no model and gives the same.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const Anthropic = require("@anthropic-ai/sdk");
const { address, bothRuns } = require("./served.cjs");

const client = new Anthropic({ baseURL: address, apiKey: "unused", maxRetries: 0, timeout: 120_000 });
const tools = [{ name: "weather", input_schema: { type: "object", properties: {} } }];
const cases = { words: ["tell me", {}], reasoning: ["think", {}], tools: ["call a tool", { tools }] };

function asked(question, options) {
  return { model: "claude-node", max_tokens: 100, messages: [{ role: "user", content: question }], ...options };
}

// A replay has an id of its own.
function normalised({ id, ...rest }) {
  assert.ok(id);
  return rest;
}

for (const [name, [question, options]] of Object.entries(cases)) {
  test(`create: ${name}`, async () => {
    const body = asked(question, options);
    const [first, second] = await bothRuns(async () => normalised(await client.messages.create(body)));
    assert.deepEqual(second, first);
  });

  test(`stream: ${name}`, async () => {
    // A request of its own, so that its miss is a stream.
    const body = asked(question, { ...options, top_k: 2 });
    const [first, second] = await bothRuns(async () => {
      const stream = client.messages.stream(body);
      let deltas = 0;
      for await (const event of stream) deltas += event.type === "content_block_delta";
      assert.ok(deltas >= 2);
      return normalised(await stream.finalMessage());
    });
    assert.deepEqual(second, first);
  });
}

test("errors are the client's own", async () => {
  const refused = client.messages.create({ ...asked("x"), model: "broken" });
  await assert.rejects(refused, (error) => error instanceof Anthropic.BadRequestError && /out of order/.test(error.message));
});
