/** The bar below the photo: what the next tap means, back and forth, other shapes; and what to do now. */

import { html, useEffect, useState } from "../../vendor/preact.js";
import { byScore } from "../lib/history.js";
import { Icon } from "../lib/icons.js";
import { outlinesOf } from "../lib/rle.js";

export function Tools({ kiosk, state, t, phase }) {
  const { editing } = kiosk;
  const remove = state.mode === "remove";
  const hint = hintOf({ state, t, phase });
  return html`
    <div class="tools">
      <div class="tools__hints">${hint ?? html`<${Shapes} ...${{ kiosk, state, t }} />`}</div>
      <div class="toolbar" role="toolbar" aria-label=${t("tools.title")}>
        <div class="segment segment--dark" role="group" aria-label=${t("mode.title")}>
          <button
            class="segment__item"
            data-testid="mode-keep"
            aria-pressed=${!remove}
            onClick=${() => kiosk.set({ mode: "keep" })}
          >
            <${Icon} name="plus" /><span class="label">${t("mode.keep")}</span>
          </button>
          <button
            class="segment__item segment__item--remove"
            data-testid="mode-remove"
            aria-pressed=${remove}
            disabled=${!state.step}
            onClick=${() => kiosk.set({ mode: remove ? "keep" : "remove" })}
          >
            <${Icon} name="minus" /><span class="label">${t("mode.remove")}</span>
          </button>
        </div>
        <div class="toolbar__group">
          <${Tool} name="undo" t=${t} disabled=${!state.canUndo} act=${() => editing?.undo()} />
          <${Tool} name="redo" t=${t} disabled=${!state.canRedo} act=${() => editing?.redo()} />
          <${Tool} name="clear" icon="trash" t=${t} disabled=${!state.step} act=${() => editing?.clear()} />
        </div>
      </div>
    </div>
  `;
}

function Tool({ name, icon = name, t, disabled, act }) {
  return html`<button
    class="button button--glass button--square"
    data-testid=${name}
    disabled=${disabled}
    aria-label=${t(`action.${name}`)}
    title=${t(`action.${name}`)}
    onClick=${act}
  >
    <${Icon} name=${icon} />
  </button>`;
}

const percent = (mask) => Math.round(mask.iou_prediction * 100);

function hintOf({ state, t, phase }) {
  const busy = (key, id) =>
    html`<p class="hint hint--busy" data-testid=${id}><span class="spinner"></span>${t(key)}</p>`;
  if (phase === "analysing") {
    const key = state.waiting ? `analysing.${state.waiting}` : state.slow ? "analysing.slow" : "analysing";
    return busy(key, "analysing");
  }
  if (state.waiting) return busy(`analysing.${state.waiting}`, "waiting");
  if (phase === "ready")
    return html`<p class="hint hint--call" data-testid="hint"><${Icon} name="tap" />${t("hint.tap")}</p>`;
  if (state.step && state.mode === "remove") {
    return html`<p class="hint hint--remove" data-testid="hint"><${Icon} name="minus" />${t("hint.remove")}</p>`;
  }
  return null;
}

/** Other readings of the tap: the two that are about as good as pictures, all three in turn. */
function Shapes({ kiosk, state, t }) {
  const { step, chosen } = state;
  const masks = step?.answer.masks ?? [];
  if (masks.length < 2) return null;
  const close = step.answer.ambiguous ?? [];
  const shown = close.length > 1 ? close.slice(0, 2) : [];
  const n = byScore(step).indexOf(chosen) + 1;
  return html`
    <div class="shapes" role="group" aria-label=${t("candidates.title")}>
      ${shown.length > 0 && html`<span class="shapes__title" aria-hidden="true">${t("candidates.title")}</span>`}
      ${shown.map(
        (index, i) =>
          html` <button
            class="candidate"
            data-testid=${`candidate-${i}`}
            key=${index}
            aria-pressed=${chosen === index}
            aria-label=${t("candidate.label", { n: i + 1, percent: percent(masks[index]) })}
            onClick=${() => kiosk.editing.choose(index)}
          >
            <${Thumbnail} photo=${state.photo} mask=${masks[index]} />
          </button>`,
      )}
      <button
        class="button button--glass"
        data-testid="next-mask"
        aria-label=${t("action.next-mask.label", { n, of: masks.length, percent: percent(masks[chosen]) })}
        onClick=${() => kiosk.nextMask()}
      >
        <${Icon} name="shapes" />
        <span>${t("action.next-mask")}</span>
        <span class="count">${n}/${masks.length}</span>
        <span class="count count--score">${t("action.next-mask.score", { percent: percent(masks[chosen]) })}</span>
      </button>
    </div>
  `;
}

function Thumbnail({ photo, mask }) {
  const [canvas, setCanvas] = useState(null);
  useEffect(() => {
    if (!canvas) return;
    const side = 144;
    const [x0, y0, x1, y1] = mask.box_xyxy;
    const pad = Math.max(x1 - x0, y1 - y0) * 0.12;
    const span = Math.max(x1 - x0, y1 - y0, 1) + 2 * pad;
    const [left, top] = [(x0 + x1 - span) / 2, (y0 + y1 - span) / 2];
    [canvas.width, canvas.height] = [side, side];
    const c = canvas.getContext("2d");
    const scale = side / span;
    const fit = { x: -left * scale, y: -top * scale, width: photo.width * scale, height: photo.height * scale };
    c.globalAlpha = 0.28;
    c.drawImage(photo.image, fit.x, fit.y, fit.width, fit.height);
    c.globalAlpha = 1;
    const path = new Path2D();
    for (const loop of outlinesOf(mask.rle)) {
      for (let i = 0; i < loop.length; i += 2) {
        path[i ? "lineTo" : "moveTo"](fit.x + loop[i] * fit.width, fit.y + loop[i + 1] * fit.height);
      }
      path.closePath();
    }
    c.save();
    c.clip(path, "evenodd");
    c.drawImage(photo.image, fit.x, fit.y, fit.width, fit.height);
    c.restore();
    c.strokeStyle = "#1f6bff";
    c.lineWidth = 3;
    c.stroke(path);
  }, [canvas, mask, photo.url]);
  return html`<canvas class="candidate__picture" ref=${setCanvas} aria-hidden="true"></canvas>`;
}
