/** Keys that work wherever the focus is: scanner bursts, undo, redo; and pictures that are pasted or dropped. */

import { WedgeScanner } from "./lib/scanner.js";
import { photosIn } from "./photo.js";

const isText = (element) => element?.matches?.("input:not([type=radio], [type=checkbox], [type=color]), textarea");

export function bindKeys(kiosk) {
  let held = null; // the text field that a burst is typed into, and what it held before

  const fill = (field, value) => {
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };

  const scanner = new WedgeScanner({
    onScan(text) {
      if (held) fill(held.element, held.value);
      kiosk.scanned(text);
    },
    onTorn() {
      if (held) fill(held.element, ""); // both halves were typed into it
      kiosk.toast("toast.scan-again", "bad");
      kiosk.say("toast.scan-again");
    },
    onKey: (key) => !isText(document.activeElement) && shortcut(kiosk, key),
  });

  const steering = (on) => document.documentElement.toggleAttribute("data-pointer", !on);
  steering(false);
  window.addEventListener("pointerdown", () => steering(false), { capture: true });
  window.addEventListener(
    "keydown",
    (event) => {
      kiosk.idle?.touch();
      if (event.key === "Tab" || event.key.startsWith("Arrow")) steering(true);
      if (event.isComposing || event.altKey) return;
      if (event.ctrlKey || event.metaKey) {
        if (travel(kiosk, event)) event.preventDefault();
        return;
      }
      const field = isText(event.target) ? event.target : null;
      if (scanner.pending(event.timeStamp) === 0) held = field && { element: field, value: field.value };
      const meaning = scanner.feed(event.key, event.timeStamp, Boolean(field));
      if (meaning === "scan") {
        event.preventDefault(); // this Enter presses no button
        event.stopPropagation();
      } else if (meaning === "burst" && !field && event.key === " ") {
        event.preventDefault(); // nor does a space within
        event.stopPropagation();
      }
    },
    { capture: true },
  );

  const take = (event, transfer) => {
    const [photo] = photosIn(transfer);
    if (!photo) return;
    event.preventDefault();
    void kiosk.open(photo);
  };
  window.addEventListener("paste", (event) => take(event, event.clipboardData));
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    kiosk.set({ dropping: true });
  });
  window.addEventListener("dragleave", (event) => event.relatedTarget === null && kiosk.set({ dropping: false }));
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    kiosk.set({ dropping: false });
    take(event, event.dataTransfer);
  });
}

function travel(kiosk, event) {
  if (isText(event.target) || !kiosk.editing) return false;
  const key = event.key.toLowerCase();
  if (key === "z") kiosk.editing[event.shiftKey ? "redo" : "undo"]();
  else if (key === "y") kiosk.editing.redo();
  else return false;
  return true;
}

/** Single letters, once it is sure that no scanner types them. */
function shortcut(kiosk, key) {
  const low = key.toLowerCase();
  if (low === "m") kiosk.nextMask();
  else if (low === "b") kiosk.boxKey?.();
}
