/** The annotation page: puts session, stage and surroundings together, and gives every key its meaning. */

import { Stage } from "./annotate/stage.js";
import { Session } from "./annotate/session.js";
import { Thumbs } from "./annotate/thumbs.js";
import { App } from "./annotate/ui.js";
import { Api, initialToken, rememberToken } from "./lib/api.js";
import { pickLanguage, translator } from "./lib/i18n.js";
import { preferences } from "./lib/store.js";
import { html, render } from "../vendor/preact.js";

const LANGUAGES = ["en", "de"];
const MESSAGE_MS = 6000;
const NUDGE = { coarse: 1 / 32, fine: 1 / 256 };

const language = pickLanguage([preferences.get("language"), ...navigator.languages].filter(Boolean), LANGUAGES);
document.documentElement.lang = language;
const t = await texts(language);
document.title = t("page-title");

const view = { dialog: null };
const api = new Api({ token: initialToken(), onUnauthorized: () => open("token") });
const session = new Session(api);
const thumbs = new Thumbs(session, draw);
let stage = null;

const actions = {
  mount(element) {
    stage = new Stage(element, { session, still: matchMedia("(prefers-reduced-motion: reduce)").matches });
    stage.show(session.state);
  },
  open: (index) => session.open(index),
  help: () => open("help"),
  categories: () => open("categories"),
  close: () => open(null),
  async saveCategories(wanted) {
    try {
      await session.saveCategories(wanted);
      open(null);
    } catch (error) {
      open(null);
      session.say(error.code === "category_in_use" ? "category-in-use" : "failed", "error", { detail: error.message });
    }
  },
  token(token) {
    rememberToken(token);
    api.token = token;
    open(null);
    start();
  },
  async exportAll() {
    try {
      const { blob } = await api.blob("GET", "/annotations/export?format=zip");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = `${session.state.folder || "annotations"}-coco.zip`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    } catch (error) {
      session.say("failed", "error", { detail: error.message });
    }
  },
};

async function texts(name) {
  const load = async (file) => (await fetch(new URL(`../strings/annotate/${file}.json`, import.meta.url))).json();
  const [own, english] = await Promise.all([load(name), load("en")]);
  return translator(name, own, english);
}

function open(dialog) {
  view.dialog = dialog;
  draw();
}

let frame = null;
function draw() {
  frame ??= requestAnimationFrame(() => {
    frame = null;
    render(html`<${App} ...${{ session, thumbs, actions, t, view: { ...view } }} />`, document.getElementById("app"));
  });
}

let hiding = null;
session.store.subscribe((state) => {
  Object.assign(document.body.dataset, {
    state: state.state, server: state.server, unsaved: String(state.unsaved), photo: session.photo?.key ?? "",
  });
  stage?.show(state);
  clearTimeout(hiding);
  if (state.message) {
    const left = MESSAGE_MS - (Date.now() - state.message.at);
    hiding = setTimeout(() => session.say(null), Math.max(0, left));
  }
  draw();
});

async function start() {
  try {
    await session.start();
  } catch (error) {
    if (error.status !== 401) session.say("failed", "error", { detail: error.message });
  }
}

const KEYS = {
  ArrowLeft: () => session.neighbour(-1),
  ArrowRight: () => session.neighbour(1),
  j: () => session.neighbour(-1),
  k: () => session.neighbour(1),
  n: () => session.accept() || session.say("nothing-to-accept", "info"),
  s: () => session.skip(),
  m: () => session.nextMask(),
  x: () => session.store.set({ mode: session.state.mode === "remove" ? "keep" : "remove" }),
  Enter: (event) => session.finish({ empty: event.shiftKey }),
  Delete: () => session.removeObject(),
  Backspace: () => session.removeObject(),
  Escape: () => session.clear(),
  "?": () => open("help"),
};
const NUDGES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

addEventListener("keydown", (event) => {
  const element = event.target instanceof Element ? event.target : document.body;
  if (view.dialog || element.closest("input, textarea, select, dialog")) return;
  // Enter and Space press the button that has the focus; every other key keeps its meaning there.
  if (element.closest("button, a") && ["Enter", " "].includes(event.key)) return;
  if (event.ctrlKey || event.metaKey) {
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) session.redo();
    else session.undo();
    return;
  }
  if (event.altKey) {
    if (!NUDGES[event.key]) return;
    event.preventDefault();
    const by = event.shiftKey ? NUDGE.fine : NUDGE.coarse;
    stage?.move(...NUDGES[event.key].map((step) => step * by));
    return;
  }
  if (event.key === " " && element.closest(".an__stage")) {
    event.preventDefault();
    stage.tap(event.shiftKey);
    return;
  }
  const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
  if (digit) {
    const category = session.state.categories[digit - 1];
    if (category) session.setCategory(category.id);
    return;
  }
  const action = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!action || (event.repeat && !event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  action(event);
});

// After a click the keys belong to the photo again: Enter shall not press the same button once more.
addEventListener("click", (event) => {
  if (event.detail > 0 && event.target instanceof Element) event.target.closest("button")?.blur();
});

addEventListener("beforeunload", (event) => {
  if (session.state.unsaved) event.preventDefault();
});

globalThis.boothsam = { session, overlay: () => stage?.overlay }; // for tests, and for whoever looks under the bonnet
draw();
start();
