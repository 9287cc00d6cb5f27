/** Icons as inline SVG, drawn on a 24-pixel grid with a 2-pixel pen. */

import { html } from "../../vendor/preact.js";

const PATHS = {
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16.5a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z",
  "camera-off": "M3 3l18 18M9 5h6l2 3h3v9M17 19H4V8h3M9.6 10.8a3.5 3.5 0 0 0 4.7 4.9",
  photo: "M4 5h16v14H4zM4 16l5-5 4 4 3-3 4 4M15.5 9.2h.01",
  undo: "M8 5L4 9l4 4M4 9h10a5.5 5.5 0 0 1 0 11h-4",
  redo: "M16 5l4 4-4 4M20 9H10a5.5 5.5 0 0 0 0 11h4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  shapes: "M8 4l5 8H3zM17 7a3.5 3.5 0 1 1-.01 0M11 16h9v5h-9z",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  save: "M4 7l8-4 8 4v10l-8 4-8-4zM4 7l8 4 8-4M12 11v10",
  check: "M5 12.5l5 5L19.5 7",
  alert: "M12 4L2.5 20h19zM12 10v4.5M12 17.4h.01",
  close: "M6 6l12 12M18 6L6 18",
  gear: "M10.4 3h3.2l.5 2.7 2 1.1 2.6-.9 1.6 2.8-2.1 1.8v2.3l2.1 1.8-1.6 2.8-2.6-.9-2 1.1-.5 2.7h-3.2l-.5-2.7-2-1.1-2.6.9-1.6-2.8 2.1-1.8v-2.3L3.7 8.7l1.6-2.8 2.6.9 2-1.1zM12 14.6a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
  down: "M6 9.5l6 6 6-6",
  box: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M11 4h2M11 20h2M4 11v2M20 11v2",
  shop: "M4 10v10h16V10M3 10l2-6h14l2 6M3 10a3 3 0 0 0 6 0 3 3 0 0 0 6 0 3 3 0 0 0 6 0M10 20v-5h4v5",
  clock: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 7v5l3.5 2",
  "cloud-off": "M3 3l18 18M8 8.2A5 5 0 0 0 7 18h10.5M11 6.2a5.5 5.5 0 0 1 6.4 4.8A3.8 3.8 0 0 1 20.6 16",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  disk: "M4 6c0-1.7 3.6-3 8-3s8 1.3 8 3v12c0 1.7-3.6 3-8 3s-8-1.3-8-3zM4 6c0 1.7 3.6 3 8 3s8-1.3 8-3M4 12c0 1.7 3.6 3 8 3s8-1.3 8-3",
  barcode: "M4 6v12M7.5 6v12M11 6v12M14 6v12M17 6v12M20 6v12",
  next: "M5 12h14M13 6l6 6-6 6",
  again: "M20 5v5h-5M4 19v-5h5M19 10a7.5 7.5 0 0 0-13.6-2.2M5 14a7.5 7.5 0 0 0 13.6 2.2",
  tap: "M9 11V5.5a1.8 1.8 0 0 1 3.6 0V11l5 1.2a2 2 0 0 1 1.5 2.3l-.9 5H10l-4.2-5.6a1.6 1.6 0 0 1 2.3-2.2z",
  pause: "M8 5v14M16 5v14",
  play: "M7 4.5v15l12-7.5z",
};

/** @param {{name: keyof typeof PATHS}} props */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} />
  </svg>`;
}
