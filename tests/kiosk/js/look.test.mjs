// What is asked of the service for the file, and what a shop's rules make of the verdict.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const root = new URL("../../../service/static/", import.meta.url);
const load = (path) => import(new URL(`js/${path}`, root));
const { fileFields, fileFormat, shopName, shopOf, shownBackground, tidyFields } = await load("look.js");
const { shopVerdict } = await load("phase.js");
const { question, withBox, withPoint, withPrompt } = await load("lib/history.js");
const { outlinesOf } = await load("lib/rle.js");

const AMAZON = { name: "amazon", title: "Amazon: main image", make: { format: "jpg", background: "white" } };
const OWN = {
  background: "colour", colour: "#336699", format: "webp", tidy: true, preset: "", presets: [AMAZON],
  booth: { on: false },
};
const FOR_AMAZON = { ...OWN, preset: "amazon" };

test("the visitor's own look is sent with its fields", () => {
  const tidy = { fill_holes: true, drop_islands: true };
  assert.deepEqual(fileFields(OWN), { ...tidy, background: "#336699", format: "webp", quality: 92 });
  assert.deepEqual(fileFields({ ...OWN, tidy: false, background: "white", format: "png" }), {
    background: "white", format: "png",
  });
  assert.deepEqual(fileFields(OWN, "png"), { ...tidy, background: "#336699", format: "png" });
  assert.equal(fileFormat(OWN), "webp");
  assert.deepEqual(tidyFields({ tidy: false }), {});
});

test("a shop chooses background and format, but for tidiness", () => {
  assert.deepEqual(fileFields(FOR_AMAZON), { fill_holes: true, drop_islands: true, preset: "amazon" });
  assert.equal(fileFormat(FOR_AMAZON), "jpg");
  assert.equal(shownBackground(FOR_AMAZON), "white");
  assert.equal(shopName(AMAZON), "Amazon");
  assert.equal(shopName({ title: "GS1 Product Image Specification 4.4: product image" }), "GS1");
});

test("an unknown shop, and the booth's loop, leave the visitor's own look", () => {
  assert.equal(shopOf({ ...OWN, preset: "gone" }), null);
  assert.equal(shopOf({ ...FOR_AMAZON, booth: { on: true } }), null);
});

test("a shop's verdict: red of the photo first, then what the shop wants", () => {
  const [green, amber, red] = ["green", "amber", "red"].map((light) => ({ light, code: light }));
  assert.equal(shopVerdict(green, "ok", "Amazon"), green);
  assert.equal(shopVerdict(green, null, "Amazon"), green);
  assert.equal(shopVerdict(red, "enlarged", "Amazon"), red);
  assert.deepEqual(shopVerdict(amber, "min_longest,enlarged", "Amazon"), {
    light: "amber", code: "shop-soft", values: { shop: "Amazon" },
  });
  assert.equal(shopVerdict(green, "aspect", "Amazon").code, "shop-advice");
  assert.deepEqual(shopVerdict(red, "background", "Amazon", true), {
    light: "red", code: "shop-bright", values: { shop: "Amazon" },
  });
  assert.equal(shopVerdict(green, "formats", "Amazon", true).code, "shop-refused");
  assert.equal(shopVerdict(green, null, "Amazon", true).light, "red", "refused without a reason is refused");
});

test("every verdict of a shop has its sentence", () => {
  const texts = JSON.parse(readFileSync(new URL("strings/en.json", root), "utf8"));
  for (const code of ["soft", "bright", "bytes", "advice", "refused"]) {
    assert.ok(texts[`verdict.shop-${code}`] && texts[`verdict.shop-${code}.do`], code);
  }
});

test("a box that was drawn is asked for three shapes, one that the plate gave for one", () => {
  const box = withBox([1, 2, 30, 40]);
  assert.equal(question(box).multimask, true);
  box.answer = { masks: [{ logits_id: "a" }] };
  assert.equal(question(withPoint(box, [5, 5], 0)).multimask, false);
  assert.equal(question(withPrompt({ points: [], labels: [], box: [1, 2, 3, 4] })).multimask, false);
});

test("outlines leave out what is tidied away, and never everything", () => {
  const [width, height] = [100, 100];
  const rle = (...squares) => {
    const data = new Uint8Array(width * height);
    for (const [x, y, side, value] of squares)
      for (let i = 0; i < side; i++) for (let j = 0; j < side; j++) data[(x + i) * height + y + j] = value;
    const counts = [];
    let [value, run] = [0, 0];
    for (const bit of data) {
      if (bit !== value) {
        counts.push(run);
        [value, run] = [bit, 0];
      }
      run += 1;
    }
    return { size: [height, width], counts: [...counts, run] };
  };
  const spoilt = rle([10, 10, 40, 1], [20, 20, 7, 0], [70, 70, 7, 1]); // a hole and a speck of 49 pixels each
  assert.equal(outlinesOf(spoilt).length, 3);
  assert.equal(outlinesOf(spoilt, 0.01).length, 1);
  assert.equal(outlinesOf(rle([70, 70, 7, 1]), 0.01).length, 1, "a product that is small itself");
});

test("scanner: the end of a scan that broke off is no number, the next whole one is", async () => {
  const { WedgeScanner } = await load("lib/scanner.js");
  const told = [];
  const scanner = new WedgeScanner({ onScan: (text) => told.push(text), onTorn: () => told.push("torn") });
  let now = 1000;
  const type = (text, gap = 8) => {
    for (const key of text) scanner.feed(key === "\n" ? "Enter" : key, (now += gap));
  };
  type("MUG-");
  now += 900; // the computer stood still
  type("RED-01\n");
  assert.deepEqual(told, ["torn"]);
  type("MUG-RED-01\n");
  now += 900;
  type("MUG-RED-02\n");
  assert.deepEqual(told, ["torn", "MUG-RED-01", "MUG-RED-02"]);
  type("mm", 200); // a finger looks for the next shape
  now += 900;
  type("MUG-3\n");
  assert.equal(told.at(-1), "MUG-3");
  type("MUG-");
  now += 5000; // a scan that never ended is forgotten
  type("MUG-4\n");
  assert.equal(told.at(-1), "MUG-4");
});
