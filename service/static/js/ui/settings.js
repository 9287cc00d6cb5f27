/** The settings sheet, and the dialog that asks for a token. */

import { html, useState } from "../../vendor/preact.js";
import { Icon } from "../lib/icons.js";
import { useDialog } from "./dialog.js";

export function Settings({ kiosk, state, t }) {
  const close = () => kiosk.set({ sheet: null });
  const dialog = useDialog(close);
  const { status } = state;
  return html`
    <dialog class="sheet" ref=${dialog} aria-label=${t("settings.title")} data-testid="settings-sheet">
      <header class="sheet__head">
        <h2>${t("settings.title")}</h2>
        <button
          class="button button--quiet button--round"
          data-testid="settings-close"
          aria-label=${t("action.close")}
          onClick=${close}
        >
          <${Icon} name="close" />
        </button>
      </header>
      <section class="setting">
        <div><h3>${t("language.title")}</h3></div>
        <div class="segment" role="group" aria-label=${t("language.title")} data-testid="language">
          ${state.languages.map(
            ({ code, name }) =>
              html` <button
                class="segment__item"
                key=${code}
                lang=${code}
                data-testid=${`language-${code}`}
                aria-pressed=${state.language === code}
                onClick=${() => kiosk.setLanguage(code, true)}
              >
                ${name}
              </button>`,
          )}
        </div>
      </section>
      <section class="setting">
        <div>
          <h3 id="tidy-title">${t("tidy.title")}</h3>
          <p>${t("tidy.text")}</p>
        </div>
        <button
          class="switch"
          role="switch"
          data-testid="tidy-switch"
          aria-checked=${state.tidy}
          aria-labelledby="tidy-title"
          onClick=${() => kiosk.setTidy(!state.tidy)}
        >
          <span class="switch__knob"></span>
        </button>
      </section>
      ${
        status?.captures &&
        html` <section class="setting">
          <div>
            <h3 id="booth-title">${t("booth.title")}</h3>
            <p>${t("booth.text")}</p>
          </div>
          <button
            class="switch"
            role="switch"
            data-testid="booth-switch"
            aria-checked=${state.booth.on}
            aria-labelledby="booth-title"
            onClick=${() => kiosk.booth.toggle()}
          >
            <span class="switch__knob"></span>
          </button>
        </section>`
      }
      ${
        status?.captures &&
        state.booth.on &&
        html` <section class="setting setting--sub">
          <div>
            <h3>${t("booth.delay")}</h3>
            <p>${t("booth.delay.text")}</p>
          </div>
          <div class="segment" role="group" aria-label=${t("booth.delay")}>
            ${[0, 1, 3].map(
              (n) =>
                html`<button
                  class="segment__item"
                  key=${n}
                  data-testid=${`delay-${n}`}
                  aria-pressed=${state.booth.delay === n}
                  onClick=${() => kiosk.booth.setDelay(n)}
                >
                  ${n ? t("booth.seconds", { n }) : t("booth.no-delay")}
                </button>`,
            )}
          </div>
        </section>`
      }
      <${Plate} ...${{ kiosk, state, t }} />
      ${
        status?.annotate &&
        html` <section class="setting">
          <div>
            <h3>${t("annotate.title")}</h3>
            <p>${t("annotate.text")}</p>
          </div>
          <a class="button button--quiet" href="/annotate">${t("annotate.open")}</a>
        </section>`
      }
      ${status && html`<p class="sheet__foot">boothsam ${status.boothsam} · ${status.model}</p>`}
    </dialog>
  `;
}

function Plate({ kiosk, state, t }) {
  const { plate } = state.status ?? {};
  const live = state.camera.state === "live";
  return html`
    <section class="setting setting--plate">
      <div>
        <h3>${t("plate.title")}</h3>
        <p>${t("plate.text")}</p>
        <p class="setting__fact" data-testid="plate-age">
          ${plate ? t("plate.age", { age: age(plate.taken_at, state.language) }) : t("plate.not-taken")}
        </p>
      </div>
      <div class="setting__actions">
        <button
          class="button button--quiet"
          data-testid="plate-take"
          disabled=${!live || state.plateBusy}
          onClick=${() => kiosk.plate.take()}
        >
          ${state.plateBusy ? html`<span class="spinner"></span>` : html`<${Icon} name="camera" />`}
          <span>${t(plate ? "plate.retake" : "plate.take")}</span>
        </button>
        ${
          plate &&
          html`<button class="button button--text" data-testid="plate-delete" onClick=${() => kiosk.plate.remove()}>
            ${t("plate.delete")}
          </button>`
        }
      </div>
    </section>
  `;
}

const UNITS = [
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
];

function age(time, language) {
  const seconds = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  const words = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  const [unit, size] = UNITS.find(([, s]) => seconds >= s) ?? ["second", 1];
  return words.format(-Math.floor(seconds / size), unit);
}

export function TokenDialog({ kiosk, state, t }) {
  const [text, setText] = useState("");
  const dialog = useDialog(() => {}); // without a token nothing works: it stays
  const send = () => text.trim() && kiosk.setToken(text.trim());
  return html`
    <dialog class="sheet sheet--small" ref=${dialog} aria-label=${t("token.title")} data-testid="token-dialog">
      <h2>${t("token.title")}</h2>
      <p>${t("token.text")}</p>
      <div class="field">
        <label class="field__label" for="token">${t("token.label")}</label>
        <input
          id="token"
          class="field__input"
          data-testid="token"
          type="password"
          autocomplete="off"
          value=${text}
          onInput=${(event) => setText(event.target.value)}
          onKeyDown=${(event) => event.key === "Enter" && send()}
        />
      </div>
      <button
        class="button button--primary button--big"
        data-testid="token-send"
        disabled=${!text.trim()}
        onClick=${send}
      >
        ${t("action.continue")}
      </button>
    </dialog>
  `;
}
