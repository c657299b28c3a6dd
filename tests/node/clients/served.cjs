// The server that the tests of clients ask, and the upstream behind it.

const assert = require("node:assert/strict");

const address = process.env.LIKEWISE_URL;

// How often the upstream was asked.
async function calls() {
  const answer = await fetch(`${process.env.LIKEWISE_UPSTREAM}/calls`);
  return (await answer.json()).count;
}

// What a client gets twice; the second run must not ask the upstream.
async function bothRuns(ask) {
  const first = await ask();
  const before = await calls();
  const second = await ask();
  assert.equal(await calls(), before, "the second run asked the upstream");
  return [first, second];
}

module.exports = { address, url: `${address}/v1`, bothRuns };
