// The JavaScript blocks of docs/, each run as a program, and compared with the output that the page shows.

const assert = require("node:assert/strict");
const { execFile } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { test } = require("node:test");
const { promisify } = require("node:util");

const root = path.join(__dirname, "..", "..");
// Modules are found from the place of the program.
const home = path.dirname(process.env.NODE_PATH);

function programs() {
  const pages = fs.readdirSync(path.join(root, "docs"), { recursive: true }).filter((page) => page.endsWith(".md"));
  return pages.flatMap((page) => {
    const text = fs.readFileSync(path.join(root, "docs", page), "utf8");
    const blocks = [...text.matchAll(/^```([^\n]*)\n(.*?)^```$/gms)];
    const shown = (place) => (blocks[place + 1]?.[1] === "text" ? blocks[place + 1][2] : "");
    return blocks.flatMap(([, language, program], place) =>
      language === "js" ? [{ name: `${page}:${place}`, program, shown: shown(place) }] : [],
    );
  });
}

test("programs were found", () => assert.ok(programs().length >= 1));

for (const { name, program, shown } of programs()) {
  test(`${name} runs`, async (t) => {
    const file = path.join(home, `${process.pid}-${name.replaceAll(/\W/g, "-")}.mjs`);
    fs.writeFileSync(file, program.replaceAll("http://127.0.0.1:8420", process.env.LIKEWISE_URL));
    t.after(() => fs.rmSync(file));
    const { stdout } = await promisify(execFile)(process.execPath, [file], { timeout: 60_000 });
    assert.equal(stdout, shown);
  });
}
