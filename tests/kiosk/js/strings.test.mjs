// Every text of the page is there in every language, and no language knows texts that the page has not.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

const root = new URL("../../../service/static/", import.meta.url);
const read = (path) => readFileSync(new URL(path, root), "utf8");
const { languages } = JSON.parse(read("strings/index.json"));
const texts = Object.fromEntries(languages.map(({ code }) => [code, JSON.parse(read(`strings/${code}.json`))]));
const holes = (text) => [...JSON.stringify(text).matchAll(/\{(\w+)\}/g)].map((m) => m[1]);

test("languages have the same keys and the same holes", () => {
  const keys = Object.keys(texts.en).sort();
  for (const { code } of languages) {
    assert.deepEqual(Object.keys(texts[code]).sort(), keys, code);
    for (const key of keys) {
      assert.deepEqual(new Set(holes(texts[code][key])), new Set(holes(texts.en[key])), `${code}: ${key}`);
    }
  }
});

test("texts that the page asks for by name exist", () => {
  const folders = ["js/", "js/lib/", "js/ui/"];
  const files = folders.flatMap((folder) => readdirSync(new URL(folder, root)).map((name) => folder + name));
  const asked = files
    .filter((name) => name.endsWith(".js") && !name.includes("annotate"))
    .flatMap((name) => [...read(name).matchAll(/(?:\bt|say|toast|busy)\("([\w.-]+)"/g)].map((m) => m[1]));
  assert.ok(asked.length > 60);
  for (const key of asked) assert.ok(key in texts.en, key);
});

test("what the service and the page can say has a text", () => {
  const has = (...keys) => keys.forEach((key) => assert.ok(key in texts.en, key));
  for (const code of ["ok", "blur", "clipped_highlights", "touches_border", "low_agreement"]) {
    has(`verdict.${code}`, `verdict.${code}.do`);
    if (code !== "ok") has(`booth.stop.${code}`);
  }
  for (const state of ["empty", "camera_moved", "other_size"]) has(`plate.${state}`, `booth.stop.${state}`);
  for (const key of [...read("js/messages.js").matchAll(/"(error\.[\w-]+)"/g)].map((m) => m[1])) has(key, `${key}.do`);
});
