/** What the page shows, told from its state. Pure: tested without a browser. */

/** data-state of the body. */
export function phaseOf(state) {
  if (state.error) return "error";
  if (!state.photo) {
    const { state: camera } = state.camera;
    if (camera === "lost" || camera === "none") return "no-camera";
    return camera === "live" && state.filming ? "camera" : "starting"; // a camera takes a while to its first picture
  }
  if (state.analysing) return "analysing";
  if (state.saving) return "saving";
  if (state.saved) return "saved";
  if (state.asking > 0) return "segmenting";
  return state.step ? "masked" : "ready";
}

/** data-server of the body. */
export function serverOf(state) {
  const { status } = state;
  if (!state.reachable || state.waiting === "offline" || status?.state === "failed") return "offline";
  if (!status) return "busy";
  if (status.state === "building" || status.engine?.state === "building") return "building";
  if (status.state !== "ready" || (state.waiting !== null && state.waiting !== "offline") || status.queue.depth > 0)
    return "busy";
  return "ok";
}

/**
 * The one thing that the status chip says, the most urgent first.
 *
 * @returns {{state: string, key: string, values?: object, icon: string}}
 */
export function chipOf(state) {
  const { status } = state;
  const captures = status?.captures;
  const server = serverOf(state);
  if (status?.state === "failed" && state.reachable) return { state: "failed", key: "status.failed", icon: "alert" };
  if (server === "offline") return { state: "offline", key: "status.offline", icon: "cloud-off" };
  if (server === "building") {
    const share = status.engine?.progress;
    if (typeof share !== "number") return { state: "building", key: "status.building", icon: "gear" };
    const values = { percent: Math.round(share * 100) };
    return { state: "building", key: "status.building-percent", values, icon: "gear" };
  }
  if (state.camera.state === "lost") return { state: "camera-lost", key: "status.camera-lost", icon: "camera-off" };
  if (state.number.kind === "wrong") return { state: "wrong-barcode", key: "status.wrong-barcode", icon: "barcode" };
  if (captures?.disk_low) return { state: "disk-low", key: "status.disk-low", icon: "disk" };
  if (status && status.state === "draining") return { state: "busy", key: "status.draining", icon: "clock" };
  if (!status || status.state !== "ready") return { state: "busy", key: "status.starting", icon: "clock" };
  if (state.analysing || server === "busy") return { state: "busy", key: "status.busy", icon: "clock" };
  if (captures?.waiting > 0) {
    return { state: "waiting", key: "status.waiting", values: { n: captures.waiting }, icon: "upload" };
  }
  return { state: "ready", key: "status.ready", icon: "check" };
}

const ORDER = ["touches_border", "low_agreement", "blur", "clipped_highlights"];
const RED = ["touches_border", "low_agreement"]; // the cut-out itself is wrong; the others make it less good

const SHOP_SAYS = { enlarged: "soft", background: "bright", min_fill: "bright", max_fill: "bright", max_bytes: "bytes" };

/**
 * The traffic light of a picture for a shop: what the photo itself lacks goes first, then what the shop wants.
 *
 * @param {{light: string, code: string}} verdict of the cut-out
 * @param {string | null} header X-Preset: ok, or kinds of rules separated by commas
 * @param {string} shop its name, for people
 * @param {boolean} refused the rules must be kept: there is no picture
 */
export function shopVerdict(verdict, header, shop, refused = false) {
  const kinds = (header || "").split(",").filter((kind) => kind && kind !== "ok");
  if (!refused && (verdict.light === "red" || kinds.length === 0)) return verdict;
  const known = kinds.map((kind) => SHOP_SAYS[kind]).find(Boolean);
  const code = `shop-${known ?? (refused ? "refused" : "advice")}`;
  return { light: refused ? "red" : "amber", code, values: { shop } };
}

/**
 * The traffic light of a cut-out.
 *
 * @param {string} header X-Retake: ok, or codes separated by commas
 * @returns {{light: "green" | "amber" | "red", code: string}}
 */
export function verdictOf(header) {
  const codes = (header || "ok").split(",").map((code) => code.trim());
  const first = ORDER.find((code) => codes.includes(code));
  if (!first) return { light: codes[0] === "ok" ? "green" : "amber", code: codes[0] };
  return { light: RED.includes(first) ? "red" : "amber", code: first };
}
