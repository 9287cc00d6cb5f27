// The page's modules without a DOM. Run by `node --test tests/kiosk/js`, and by test_node.py.
import assert from "node:assert/strict";
import { test } from "node:test";

const lib = (name) => import(new URL(`../../../service/static/js/${name}.js`, import.meta.url));

function rleOf(rows) {
  const [height, width] = [rows.length, rows[0].length];
  const counts = [];
  let [value, run] = ["0", 0];
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) {
      if (rows[y][x] !== value) {
        counts.push(run);
        [value, run] = [rows[y][x], 0];
      }
      run += 1;
    }
  }
  counts.push(run);
  return { size: [height, width], counts };
}

/** Area that the loops enclose: holes count against their outer loop. */
const area = (doubleArea, loops) => loops.reduce((sum, loop) => sum + doubleArea(loop) / 2, 0);

test("run lengths give the mask back, column by column", async () => {
  const { decodeRle } = await lib("lib/rle");
  const rows = ["0110", "0011", "1000"];
  const { width, height, data } = decodeRle(rleOf(rows));
  assert.deepEqual([width, height], [4, 3]);
  assert.equal([...data].join(""), rows.join(""));
  assert.throws(() => decodeRle({ size: [2, 2], counts: [1, 1] }), /add up to 2, expected 4/);
});

test("outlines: one loop for each part and each hole, and none is lost at a diagonal", async () => {
  const { decodeRle, doubleArea, traceOutlines } = await lib("lib/rle");
  const ring = ["000000", "011110", "010010", "010010", "011110", "000000"];
  const loops = traceOutlines(decodeRle(rleOf(ring)));
  assert.equal(loops.length, 2);
  assert.equal(loops.filter((loop) => doubleArea(loop) < 0).length, 1, "the hole runs the other way");
  const diagonal = traceOutlines(decodeRle(rleOf(["100", "010", "001"])));
  assert.equal(diagonal.length, 3);
  const border = traceOutlines(decodeRle(rleOf(["11", "11"])));
  assert.equal(border.length, 1);
  assert.equal(border[0].length / 2, 8, "one point for each edge of a pixel");
});

test("an outline encloses what it was made of, simplified too", async () => {
  const { decodeRle, doubleArea, simplify, traceOutlines } = await lib("lib/rle");
  const size = 120;
  const rows = Array.from({ length: size }, (_, y) =>
    Array.from({ length: size }, (_, x) => (Math.hypot(x - 60, y - 58) < 44 ? "1" : "0")).join(""),
  );
  const pixels = rows.join("").replaceAll("0", "").length;
  const loops = traceOutlines(decodeRle(rleOf(rows)));
  assert.ok(Math.abs(area(doubleArea, loops) - pixels) / pixels < 0.01);
  const simple = loops.map((loop) => simplify(loop, 0.7));
  assert.ok(simple[0].length < loops[0].length / 3);
  assert.ok(Math.abs(area(doubleArea, simple) - pixels) / pixels < 0.02);
});

test("a tap lands on the photo's pixel at any size of the screen, and comes back", async () => {
  const { contain, onPhoto, toPhoto, toScreen } = await lib("lib/geometry");
  for (const box of [{ width: 1080, height: 1200 }, { width: 1400, height: 1080 }, { width: 360, height: 470 }]) {
    const fit = contain(4000, 3000, box, { top: 70, bottom: 120, left: 8, right: 8 });
    const eps = 1e-9;
    assert.ok(fit.x >= 8 - eps && fit.y >= 70 - eps && fit.y + fit.height <= box.height - 120 + eps);
    for (const point of [[0, 0], [3999, 2999], [1234.5, 777]]) {
      const back = toPhoto(fit, ...toScreen(fit, ...point));
      assert.ok(Math.hypot(back[0] - point[0], back[1] - point[1]) < 1e-6);
    }
    assert.ok(!onPhoto(fit, fit.x - 5, fit.y + 5));
    assert.ok(onPhoto(fit, fit.x - 5, fit.y + 5, 6));
  }
});

function clock() {
  const timers = new Map();
  let [now, last] = [0, 0];
  return {
    get now() {
      return now;
    },
    setTimer(run, ms) {
      timers.set((last += 1), { run, at: now + ms });
      return last;
    },
    clearTimer: (id) => timers.delete(id),
    pass(ms) {
      now += ms;
      for (const [id, { run, at }] of [...timers]) {
        if (at <= now) {
          timers.delete(id);
          run();
        }
      }
    },
  };
}

test("gestures: a shaky tap is a tap, half a second is a background point, a drag is a box", async () => {
  const { Gesture, LONG_PRESS_MS } = await lib("lib/gestures");
  const time = clock();
  const seen = [];
  const on = { tap: (x, y, bg) => seen.push(["tap", x, y, bg]), drop: (a, b) => seen.push(["box", a, b]), cancel: () => seen.push(["none"]) };
  const hand = new Gesture(on, time);
  hand.down(1, 100, 100, { kind: "touch" });
  hand.move(1, 108, 106);
  hand.up(1, 109, 107);
  hand.down(2, 50, 50, { kind: "touch" });
  time.pass(LONG_PRESS_MS);
  hand.move(2, 200, 200);
  hand.up(2, 200, 200);
  hand.down(3, 10, 10, { kind: "mouse" });
  hand.move(3, 60, 90);
  time.pass(1000);
  hand.up(3, 60, 90);
  hand.down(4, 10, 10, { kind: "touch" });
  hand.move(4, 200, 12);
  hand.up(4, 200, 12);
  assert.deepEqual(seen, [["tap", 100, 100, false], ["tap", 50, 50, true], ["box", [10, 10], [60, 90]], ["none"]]);
});

test("gestures: a press that a busy page hears of only when it is over is a long one all the same", async () => {
  const { Gesture, LONG_PRESS_MS } = await lib("lib/gestures");
  const seen = [];
  const hand = new Gesture({ tap: (x, y, background) => seen.push(background) }, clock());
  for (const pressed of [LONG_PRESS_MS - 1, LONG_PRESS_MS]) {
    hand.down(1, 100, 100, { kind: "touch", time: 7000 });
    hand.up(1, 100, 100, 7000 + pressed);
  }
  assert.deepEqual(seen, [false, true]);
});

test("gestures: a second finger cancels", async () => {
  const { Gesture } = await lib("lib/gestures");
  const time = clock();
  const seen = [];
  const hand = new Gesture({ tap: () => seen.push("tap"), cancel: () => seen.push("none") }, time);
  hand.down(1, 10, 10);
  hand.down(2, 90, 90);
  time.pass(1000);
  hand.up(1, 10, 10);
  assert.deepEqual(seen, ["none"]);
});

async function typed(text, gap, inField, end = "Enter") {
  const { WedgeScanner } = await lib("lib/scanner");
  const time = clock();
  const [scans, keys] = [[], []];
  const scanner = new WedgeScanner({ onScan: (code) => scans.push(code), onKey: (key) => keys.push(key), ...time });
  let meaning;
  for (const key of [...text, end]) {
    time.pass(gap);
    meaning = scanner.feed(key, time.now, inField);
  }
  time.pass(1000);
  return { scans, keys, meaning };
}

test("scanner: bursts that end in Enter are scans, people's typing is not", async () => {
  assert.deepEqual((await typed("4006381333931", 8, true)).scans, ["4006381333931"]);
  assert.deepEqual((await typed("MUG-7", 15, false, "Tab")).scans, ["MUG-7"]);
  assert.deepEqual((await typed("MUG-7", 120, false)).scans, ["MUG-7"], "a busy computer hands keys on late");
  assert.deepEqual((await typed("MUG-7", 120, true)).scans, [], "in a field that is somebody typing");
  assert.deepEqual((await typed("abc", 8, false)).scans, [], "too short");
  assert.equal((await typed("", 8, false)).meaning, "single", "Enter alone presses the button");
});

test("scanner: a lone key is handed on, keys of a scan are not", async () => {
  assert.deepEqual((await typed("m", 200, false, "Escape")).keys, ["m"]);
  assert.deepEqual((await typed("b", 10, false, "ArrowRight")).keys, ["b"], "an arrow right after it says so too");
  assert.deepEqual((await typed("m", 90, false)).keys, ["m"], "once, although Enter follows");
  assert.deepEqual((await typed("bmw4711", 10, false)).keys, []);
  const again = await typed("mmmmm", 150, false);
  assert.deepEqual([again.keys.join(""), again.scans], ["mmmmm", []], "the same key again and again is a finger");
  const capitals = [..."MUG7"].flatMap((key) => ["Shift", key]);
  assert.deepEqual((await typed(capitals, 6, false)).scans, ["MUG7"]);
});

test("numbers: GTINs by their check digit, everything else is the shop's own", async () => {
  const { readNumber } = await lib("lib/gtin");
  assert.deepEqual(readNumber("4006381333931"), { kind: "gtin", text: "4006381333931" });
  assert.deepEqual(readNumber("96385074"), { kind: "gtin", text: "96385074" });
  assert.deepEqual(readNumber("036000291452"), { kind: "gtin", text: "036000291452" });
  assert.deepEqual(readNumber("4006381333932"), { kind: "wrong", text: "4006381333932", expected: "1" });
  assert.deepEqual(readNumber(" MUG-7 "), { kind: "sku", text: "MUG-7" });
  assert.deepEqual(readNumber("12345"), { kind: "sku", text: "12345" });
  assert.deepEqual(readNumber("  "), { kind: "none" });
});

test("history: undo and redo; the second prompt refines the chosen mask", async () => {
  const { byScore, History, question, withBox, withPoint } = await lib("lib/history");
  const history = new History();
  const first = withPoint(null, [10, 20], 1);
  assert.equal(question(first).multimask, true);
  first.answer = { masks: [{ logits_id: "a", iou_prediction: 0.2 }, { logits_id: "b", iou_prediction: 0.9 }] };
  first.chosen = 1;
  assert.deepEqual(byScore(first), [1, 0]);
  history.push(first);
  const second = withPoint(first, [30, 40], 0);
  const { points, labels, multimask, mask_input: mask } = question(second);
  assert.deepEqual([points, labels, multimask, mask], [[[10, 20], [30, 40]], [1, 0], false, "b"]);
  history.push(second);
  history.undo();
  assert.equal(history.present, first);
  history.redo();
  assert.equal(history.present, second);
  history.undo();
  history.push(withBox([1, 2, 30, 40]));
  assert.equal(history.canRedo, false);
  assert.deepEqual(question(history.present).box, [1, 2, 30, 40]);
  history.clear();
  assert.equal(history.present, null);
  history.undo();
  assert.deepEqual(history.present.box, [1, 2, 30, 40]);
});

test("retries: what the service says when busy, for ever when it is gone, at once an error of its own", async () => {
  const { ApiError, OfflineError, retrying } = await lib("lib/retry");
  const waits = [];
  const tools = { wait: async (ms) => waits.push(ms), now: () => waits.reduce((a, b) => a + b, 0), random: () => 0 };
  const script = [new ApiError(503, { code: "deadline" }, 2), new OfflineError(), new OfflineError(), "there"];
  const said = [];
  const call = async () => {
    const next = script.shift();
    if (next instanceof Error) throw next;
    return next;
  };
  assert.equal(await retrying(call, { ...tools, onWait: (error) => said.push(error?.name ?? null) }), "there");
  assert.deepEqual(waits, [2000, 1000, 2000]);
  assert.deepEqual(said, ["ApiError", "OfflineError", "OfflineError", null]);
  const refused = async () => Promise.reject(new ApiError(422, { code: "broken_image" }));
  await assert.rejects(retrying(refused, tools), { code: "broken_image" });
  const busy = async () => Promise.reject(new ApiError(429, { code: "queue_full" }, 5));
  await assert.rejects(retrying(busy, { ...tools, patience: 12_000 }), { code: "queue_full" });
});

test("texts: plural forms, English for what is missing, the reader's language", async () => {
  const { pickLanguage, translator } = await lib("lib/i18n");
  const t = translator("de", { n: { one: "{n} Foto", other: "{n} Fotos" } }, { n: "x", bye: "Bye {name}" });
  assert.deepEqual([t("n", { n: 1 }), t("n", { n: 5 }), t("bye", { name: "A" }), t("gone")], ["1 Foto", "5 Fotos", "Bye A", "gone"]);
  assert.equal(pickLanguage(["de-AT", "en"], ["en", "de"]), "de");
  assert.equal(pickLanguage(["fr"], ["en", "de"]), "en");
});

test("state: the most urgent thing is said", async () => {
  const { chipOf, phaseOf, serverOf, verdictOf } = await lib("phase");
  const calm = {
    error: null, photo: null, camera: { state: "live" }, filming: true, reachable: true, waiting: null, analysing: false,
    number: { kind: "none" },
    status: { state: "ready", engine: { state: "none", progress: null }, queue: { depth: 0 }, captures: { waiting: 0, disk_low: false } },
  }; // prettier-ignore
  const status = (patch) => ({ ...calm, status: { ...calm.status, ...patch } });
  assert.deepEqual([phaseOf(calm), serverOf(calm), chipOf(calm).state], ["camera", "ok", "ready"]);
  assert.equal(chipOf({ ...calm, reachable: false }).state, "offline");
  assert.equal(chipOf({ ...calm, camera: { state: "lost" } }).state, "camera-lost");
  assert.equal(chipOf({ ...calm, number: { kind: "wrong" } }).state, "wrong-barcode");
  assert.deepEqual(chipOf(status({ captures: { waiting: 3, disk_low: false } })).values, { n: 3 });
  assert.equal(chipOf(status({ captures: { waiting: 3, disk_low: true } })).state, "disk-low");
  assert.deepEqual(chipOf(status({ engine: { state: "building", progress: 0.42 } })).values, { percent: 42 });
  assert.deepEqual(verdictOf("ok"), { light: "green", code: "ok" });
  assert.deepEqual(verdictOf("blur,touches_border"), { light: "red", code: "touches_border" });
  assert.deepEqual(verdictOf("blur"), { light: "amber", code: "blur" });
});

test("booth: the same code again is the next angle; anything but green stops the loop", async () => {
  const { countToday, nextShot, stopFor } = await lib("lib/booth-loop");
  const mug = { kind: "sku", text: "MUG-7" };
  const first = nextShot(null, mug);
  assert.deepEqual([first.angle, nextShot(first, mug).angle], [1, 2]);
  assert.equal(nextShot(first, { kind: "sku", text: "CUP-1" }).angle, 1);
  assert.equal(nextShot({ number: { kind: "none" }, angle: 4 }, { kind: "none" }).angle, 1);
  assert.deepEqual([stopFor(null), stopFor({ light: "green", code: "ok" }), stopFor({ light: "amber", code: "blur" })], ["no-mask", null, "blur"]);
  const now = new Date(2026, 4, 6, 12);
  const at = (hour, day) => ({ received_at: new Date(2026, 4, day, hour).toISOString() });
  assert.equal(countToday([at(1, 6), at(23, 5), at(11, 6)], now), 2);
});
