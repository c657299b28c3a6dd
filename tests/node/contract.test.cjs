// The types that openapi-typescript generates from the served contract, checked by the compiler against the use of a client.

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const { cpSync, mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const path = require("node:path");
const { test } = require("node:test");

function tool(name, ...options) {
  const program = path.join(process.env.NODE_PATH, ".bin", name);
  return execFileSync(program, options, { encoding: "utf8", stdio: "pipe", timeout: 120_000 });
}

test("a client is typed by the contract", () => {
  const home = mkdtempSync(path.join(tmpdir(), "contract-"));
  try {
    tool("openapi-typescript", `${process.env.LIKEWISE_URL}/openapi.json`, "--output", path.join(home, "contract.d.ts"));
    cpSync(path.join(__dirname, "contract_use.ts"), path.join(home, "use.ts"));
    assert.equal(tool("tsc", "--target", "es2022", "--strict", "--noEmit", "--skipLibCheck", path.join(home, "use.ts")), "");
  } finally {
    rmSync(home, { recursive: true });
  }
});
