// Vercel's AI SDK with its providers for OpenAI, which is the Responses API, and for Anthropic: a second run calls no model and
// gives the same.

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { createAnthropic } = require("@ai-sdk/anthropic");
const { createOpenAI } = require("@ai-sdk/openai");
const { generateText, isStepCount, Output, streamText, tool } = require("ai");
const { z } = require("zod");
const { url, bothRuns } = require("./served.cjs");

const models = {
  openai: createOpenAI({ baseURL: url, apiKey: "unused" })("gpt-5-ai"),
  anthropic: createAnthropic({ baseURL: url, apiKey: "unused" })("claude-ai"),
};

const weather = tool({
  description: "The weather of a city in the next days.",
  inputSchema: z.object({ city: z.string(), days: z.number() }),
  execute: async ({ city, days }) => `${days} days of rain in ${city}`,
});

test("an object", async () => {
  const output = Output.object({ schema: z.object({ city: z.string(), days: z.number() }) });
  const [first, second] = await bothRuns(() => generateText({ model: models.openai, prompt: "Where to?", output }));
  assert.equal(first.output.city, "La Coruña");
  assert.deepEqual(second.output, first.output);
});

for (const [name, model] of Object.entries(models)) {
  test(`generateText: ${name}`, async () => {
    const [first, second] = await bothRuns(() => generateText({ model, prompt: "Hello from the AI SDK" }));
    assert.ok(first.text);
    assert.equal(second.text, first.text);
    assert.deepEqual(second.usage, first.usage);
  });

  test(`streamText: ${name}`, async () => {
    const [first, second] = await bothRuns(async () => {
      const pieces = [];
      const { textStream } = streamText({ model, prompt: "Hello from the AI SDK, piece by piece" });
      for await (const piece of textStream) pieces.push(piece);
      assert.ok(pieces.length > 3);
      return pieces.join("");
    });
    assert.equal(second, first);
  });

  test(`a tool is called, and its result answered: ${name}`, async () => {
    const asked = { model, prompt: "call a tool", tools: { weather }, stopWhen: isStepCount(3) };
    const [first, second] = await bothRuns(() => generateText(asked));
    assert.deepEqual(first.steps.map((step) => step.finishReason), ["tool-calls", "stop"]);
    assert.equal(first.steps[0].toolResults[0].output, "3 days of rain in La Coruña");
    assert.ok(first.text);
    assert.equal(second.text, first.text);
  });
}
