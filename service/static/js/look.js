/** What is asked of the service for the finished picture: background, format, the shop it is for, tidiness. Pure. */

const QUALITY = 92;
const NO_FIELDS = {};
const TIDY_FIELDS = { fill_holes: true, drop_islands: true };

/** The chosen shop of GET /presets, or null for the visitor's own look. The booth's loop stores plain cut-outs. */
export function shopOf(state) {
  if (state.booth?.on || !state.preset) return null;
  return state.presets.find((preset) => preset.name === state.preset) ?? null;
}

/** Fields that mend small holes and specks, for cut-outs and captures alike. */
export function tidyFields(state) {
  return state.tidy ? TIDY_FIELDS : NO_FIELDS;
}

/** A shop's name without what the preset adds to it, as in "Amazon: main image". */
export function shopName(preset) {
  return preset.title.split(/[\s:]/)[0];
}

/** The fields of POST /embeddings/{id}/cutout for the file that is downloaded. */
export function fileFields(state, format = state.format) {
  const shop = shopOf(state);
  if (shop) return { ...tidyFields(state), preset: shop.name };
  const background = state.background === "colour" ? state.colour : state.background;
  return { ...tidyFields(state), background, format, ...(format === "png" ? {} : { quality: QUALITY }) };
}

/** The format of the file that is downloaded. */
export function fileFormat(state) {
  return shopOf(state)?.make.format ?? state.format;
}

/** The background that is shown behind the cut-out. */
export function shownBackground(state) {
  const shop = shopOf(state);
  if (!shop) return state.background;
  return shop.make.background === "white" ? "white" : "transparent";
}
