// Answers through the official client for Node, unmodified but for its base URL: a hit is what its miss was, in either form.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const OpenAI = require("openai");

const client = new OpenAI({ baseURL: `${process.env.LIKEWISE_URL}/v1`, apiKey: "unused", maxRetries: 0, timeout: 120_000 });
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
const cases = {
  words: ["tell me", {}],
  several: ["tell me", { n: 3 }],
  logprobs: ["tell me", { logprobs: true, n: 2 }],
  tools: ["call a tool", { tools }],
  refusal: ["refuse", {}],
};

function ask(question, options) {
  const messages = [{ role: "user", content: question }];
  return client.chat.completions.create({ model: "gpt-5-node", messages, ...options }).withResponse();
}

function normalised({ id, created, ...rest }) {
  assert.ok(id && created);
  return rest;
}

async function whole(question, options) {
  const { data, response } = await ask(question, options);
  return [normalised(data), response.headers.get("cache-status")];
}

// The chunks added up by the client's own reader of streams.
async function streamed(question, options) {
  const more = { stream: true, stream_options: { include_usage: true } };
  const { data, response } = await ask(question, { ...options, ...more });
  const chunks = [];
  for await (const chunk of data) chunks.push(chunk);
  assert.ok(chunks.length > 3, "one giant chunk is no stream");
  assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
  const choices = {};
  for (const { index, delta, logprobs, finish_reason } of chunks.flatMap((chunk) => chunk.choices)) {
    const known = (choices[index] ??= { content: "", refusal: "", calls: [], tokens: [], end: null });
    known.content += delta.content ?? "";
    known.refusal += delta.refusal ?? "";
    known.tokens.push(...(logprobs?.content ?? []));
    known.end ??= finish_reason;
    for (const call of delta.tool_calls ?? []) {
      const made = (known.calls[call.index] ??= { id: call.id, name: call.function.name, arguments: "" });
      made.arguments += call.function.arguments ?? "";
    }
  }
  return [{ choices, usage: chunks.at(-1).usage }, response.headers.get("cache-status")];
}

function addedUp(answer) {
  const choices = {};
  for (const { index, message, logprobs, finish_reason } of answer.choices) {
    const calls = (message.tool_calls ?? []).map((call) => ({ id: call.id, ...call.function }));
    const { content, refusal } = message;
    const tokens = logprobs?.content ?? [];
    choices[index] = { content: content ?? "", refusal: refusal ?? "", calls, tokens, end: finish_reason };
  }
  return { choices, usage: answer.usage };
}

for (const [name, [question, options]] of Object.entries(cases)) {
  test(`a whole answer is replayed in both forms: ${name}`, async () => {
    const [miss, outcome] = await whole(question, { seed: 1, ...options });
    assert.equal(outcome, "likewise; fwd=miss");
    const [hit, found] = await whole(question, { seed: 1, ...options });
    assert.match(found, /^likewise; hit/);
    assert.deepEqual(hit, miss);
    const [stream, alsoFound] = await streamed(question, { seed: 1, ...options });
    assert.match(alsoFound, /^likewise; hit/);
    assert.deepEqual(stream, addedUp(miss));
  });

  test(`a stream is replayed in both forms: ${name}`, async () => {
    const [miss, outcome] = await streamed(question, { seed: 2, ...options });
    assert.equal(outcome, "likewise; fwd=miss");
    const [hit, found] = await streamed(question, { seed: 2, ...options });
    assert.match(found, /^likewise; hit/);
    assert.deepEqual(hit, miss);
    const [answer, alsoFound] = await whole(question, { seed: 2, ...options });
    assert.match(alsoFound, /^likewise; hit/);
    assert.deepEqual(addedUp(answer), miss);
  });
}

test("errors of the model are the client's own", async () => {
  const messages = [{ role: "user", content: "x" }];
  const asked = client.chat.completions.create({ model: "broken", messages });
  await assert.rejects(asked, (error) => error instanceof OpenAI.BadRequestError && error.code === "broken");
});
