/** Which shop the picture is for: it then chooses background, size and format, and its rules are checked. */

import { html, useId } from "./hooks.js";
import { Icon } from "../lib/icons.js";
import { shopName, shopOf } from "../look.js";

export function Shops({ kiosk, state, t }) {
  const id = useId();
  const shop = shopOf(state);
  const [width, height] = shop?.make.size ?? [];
  return html`
    <div class="row row--shop">
      <label class="row__title" for=${id}>${t("shop.title")}</label>
      <div class="pick">
        <${Icon} name="shop" />
        <select
          id=${id}
          class="pick__select"
          data-testid="preset"
          value=${shop?.name ?? ""}
          onChange=${(event) => kiosk.setPreset(event.target.value)}
        >
          <option value="">${t("shop.own")}</option>
          ${state.presets.map(
            (preset) => html`<option key=${preset.name} value=${preset.name}>${shopName(preset)}</option>`,
          )}
        </select>
        <${Icon} name="down" />
      </div>
      ${width && html`<span class="row__fact">${t("shop.size", { width, height })}</span>`}
    </div>
  `;
}
