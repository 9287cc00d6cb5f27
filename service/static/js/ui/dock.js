/** What becomes of the product: its cut-out on a background, the verdict, and where it goes. */

import { html, useId, useRef } from "./hooks.js";
import { Icon } from "../lib/icons.js";
import { fileFormat, shopOf, shownBackground } from "../look.js";
import { Shops } from "./shops.js";

const BACKGROUNDS = ["transparent", "white", "colour"];
const FORMATS = ["png", "jpg", "webp"];

export function Dock({ kiosk, state, t, phase }) {
  const { step, preview } = state;
  const found = Boolean(step || preview); // what the booth's loop stored by itself has a picture, but no prompts
  // The controls keep their place before there is anything to control: the photo never moves under a finger.
  return html`
    <aside class="dock" aria-label=${t("dock.title")}>
      <div class="dock__controls" inert=${!step} data-found=${String(found)}>
        <${Preview} ...${{ state, t }} />
        <${Verdict} ...${{ t, preview }} />
        <div class="look ${shopOf(state) ? "look--shop" : ""}">
          ${state.presets.length > 0 && !state.booth.on && html`<${Shops} ...${{ kiosk, state, t }} />`}
          <${Backgrounds} ...${{ kiosk, state, t }} />
        </div>
        <${Export} ...${{ kiosk, state, t }} />
        ${state.status?.captures && html`<${Capture} ...${{ kiosk, state, t, phase }} />`}
      </div>
      ${!found && html`<${Guide} ...${{ t, phase }} />`}
    </aside>
  `;
}

function Preview({ state, t }) {
  const { preview, previewing, colour, step } = state;
  const background = shownBackground(state);
  const set = (element) => element?.style.setProperty("--backdrop", colour);
  return html`
    <div class="preview preview--${background} ${preview?.shop ? "preview--shop" : ""}" ref=${set} data-loading=${previewing} data-testid="preview-frame">
      ${
        preview
          ? html`<img
              class="preview__picture"
              data-testid="preview"
              data-ready=${String(!previewing)}
              data-logits=${preview.logits}
              src=${preview.url}
              alt=${t("preview.alt")}
            />`
          : html`<div class="preview__ghost" aria-hidden="true"><${Icon} name=${step ? "clock" : "shapes"} /></div>`
      }
      ${previewing && html`<span class="preview__busy spinner" aria-hidden="true"></span>`}
    </div>
  `;
}

function Guide({ t, phase }) {
  return html`
    <div class="guide">
      <h2>${t(phase === "analysing" ? "guide.analysing" : "guide.tap")}</h2>
      <ul>
        <li>
          <span class="guide__mark"><${Icon} name="tap" /></span>${t("guide.one")}
        </li>
        <li>
          <span class="guide__mark guide__mark--remove"><${Icon} name="minus" /></span>${t("guide.two")}
        </li>
        <li>
          <span class="guide__mark"><${Icon} name="box" /></span>${t("guide.three")}
        </li>
      </ul>
    </div>
  `;
}

const LIGHT_ICONS = { green: "check", amber: "alert", red: "close" };

function Verdict({ t, preview }) {
  if (!preview) {
    return html`<p class="verdict verdict--wait" data-testid="verdict" data-light="none">
      <span class="verdict__lamp"></span><span>${t("verdict.wait")}</span>
    </p>`;
  }
  const { light, code, values } = preview.verdict;
  return html`
    <p class="verdict verdict--${light}" data-testid="verdict" data-light=${light} data-code=${code}>
      <span class="verdict__lamp"><${Icon} name=${LIGHT_ICONS[light]} /></span>
      <span class="verdict__text"><strong>${t(`verdict.${code}`, values)}</strong> ${t(`verdict.${code}.do`, values)}</span>
    </p>
  `;
}

function Backgrounds({ kiosk, state, t }) {
  const colour = useRef(null);
  const chosen = shownBackground(state);
  const shop = Boolean(shopOf(state)); // it has chosen
  const ids = { transparent: "bg-transparent", white: "bg-white", colour: "bg-color" };
  return html`
    <div class="row row--backgrounds">
      <h3 class="row__title">${t("background.title")}</h3>
      <div class="swatches" role="group" aria-label=${t("background.title")}>
        ${BACKGROUNDS.map(
          (name) =>
            html` <button
              class="swatch swatch--${name}"
              key=${name}
              data-testid=${ids[name]}
              aria-pressed=${chosen === name}
              disabled=${shop}
              ref=${(element) => element?.style.setProperty("--backdrop", state.colour)}
              onClick=${() => (name === "colour" && chosen === name ? colour.current.click() : kiosk.setBackground(name))}
            >
              <span class="swatch__chip" aria-hidden="true"></span>
              <span class="swatch__name">${t(`background.${name}`)}</span>
            </button>`,
        )}
        <label class="swatch swatch--pick" title=${t("background.pick")}>
          <span class="visually-hidden">${t("background.pick")}</span>
          <input
            type="color"
            data-testid="colour-input"
            ref=${colour}
            value=${state.colour}
            disabled=${shop}
            onInput=${(event) => kiosk.setColour(event.target.value)}
          />
        </label>
      </div>
    </div>
  `;
}

function Export({ kiosk, state, t }) {
  const shop = Boolean(shopOf(state));
  const chosen = fileFormat(state);
  return html`
    <div class="row row--export">
      <div class="segment" role="group" aria-label=${t("format.title")}>
        ${FORMATS.map(
          (format) =>
            html` <button
              class="segment__item"
              key=${format}
              data-testid=${`format-${format}`}
              aria-pressed=${chosen === format}
              disabled=${shop}
              onClick=${() => kiosk.setFormat(format)}
            >
              ${t(`format.${format}`)}
            </button>`,
        )}
      </div>
      <button
        class="button button--quiet button--square"
        data-testid="copy"
        aria-label=${t("action.copy")}
        title=${t("action.copy")}
        disabled=${state.saving || shop}
        onClick=${() => kiosk.saving.copy()}
      >
        <${Icon} name="copy" />
      </button>
      <button
        class="button button--primary button--grow"
        data-testid="download"
        disabled=${state.saving || Boolean(state.preview?.refused)}
        onClick=${() => kiosk.saving.download()}
      >
        <${Icon} name="download" /><span>${t("action.download")}</span>
      </button>
    </div>
  `;
}

function Capture({ kiosk, state, t, phase }) {
  const id = useId();
  const { number, saved, saving } = state;
  const wrong = number.kind === "wrong";
  if (saved) {
    return html` <div class="row row--saved" role="status">
      <p class="saved">
        <span class="verdict__lamp"><${Icon} name="check" /></span>
        <span><strong>${t("saved.title")}</strong> ${number.text ?? ""}</span>
      </p>
      <button class="button button--primary button--grow" data-testid="next" onClick=${() => kiosk.reset()}>
        <span>${t("action.next")}</span><${Icon} name="next" />
      </button>
    </div>`;
  }
  return html`
    <div class="row row--capture">
      <div class="field ${wrong ? "field--wrong" : ""}">
        <label class="field__label" for=${id}>${t("sku.label")}</label>
        <input
          id=${id}
          class="field__input"
          data-testid="sku"
          type="text"
          autocomplete="off"
          spellcheck="false"
          maxlength="200"
          placeholder=${t("sku.placeholder")}
          value=${state.typed}
          aria-invalid=${wrong}
          aria-describedby="${id}-error"
          onInput=${(event) => kiosk.setNumber(event.target.value)}
          onKeyDown=${(event) => event.key === "Enter" && void kiosk.save()}
        />
        ${
          state.status.codes &&
          html` <button
            class="field__button"
            data-testid="read-code"
            aria-label=${t("action.read-code")}
            title=${t("action.read-code")}
            disabled=${state.reading}
            onClick=${() => kiosk.saving.readCodes()}
          >
            ${state.reading ? html`<span class="spinner"></span>` : html`<${Icon} name="barcode" />`}
          </button>`
        }
      </div>
      <button
        class="button button--ink"
        data-testid="save"
        disabled=${saving || wrong || phase === "segmenting"}
        onClick=${() => kiosk.save()}
      >
        ${saving ? html`<span class="spinner"></span>` : html`<${Icon} name="save" />`}<span>${t("action.save")}</span>
      </button>
      <div id="${id}-error" class="field__error" role="alert">
        ${
          wrong &&
          html`<p data-testid="gtin-error">
              <${Icon} name="alert" /><span>${t("gtin.wrong", { expected: number.expected })}</span>
            </p>
            <button class="button button--text" data-testid="as-sku" onClick=${() => kiosk.numberIsSku()}>
              ${t("gtin.as-sku")}
            </button>`
        }
      </div>
      ${
        state.codes &&
        html` <div class="chips" role="group" aria-label=${t("codes.title")}>
          ${state.codes.map(
            (text) =>
              html`<button
                class="chip"
                key=${text}
                onClick=${() => {
                  kiosk.setNumber(text);
                  kiosk.set({ codes: null });
                }}
              >
                ${text}
              </button>`,
          )}
        </div>`
      }
    </div>
  `;
}
