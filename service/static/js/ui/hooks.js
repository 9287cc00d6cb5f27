/** Preact as the components use it, with one hook that the bundled build lacks. */

import { useState } from "../../vendor/preact.js";

export { html, useEffect, useLayoutEffect, useRef, useState } from "../../vendor/preact.js";

let last = 0;

/** An id that stays with its component, for labels. */
export function useId() {
  return useState(() => `id${(last += 1)}`)[0];
}
