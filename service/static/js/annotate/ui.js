/** What stands around the photo: progress, categories, objects, actions, strip, and the dialogs. */

import { html, useEffect, useRef } from "../../vendor/preact.js";
import { colourOf } from "./objects.js";

const STRIP_AROUND = 24; // photos on each side of the current one
const MARKS = { open: "", started: "◐", done: "✓", skipped: "–", changed: "!", broken: "✕" };

export function App({ session, thumbs, actions, t, view }) {
  const state = session.state;
  const common = { state, session, actions, t };
  return html`
    <div class="an">
      <div class="an__desk">
        <${Top} ...${common} />
        <${Photo} ...${common} />
        <${Strip} ...${common} thumbs=${thumbs} />
      </div>
      <aside class="an__dock">
        <${Folder} ...${common} />
        <${Objects} ...${common} />
        <${Actions} ...${common} />
      </aside>
    </div>
    ${view.dialog === "help" && html`<${Help} t=${t} close=${actions.close} />`}
    ${view.dialog === "categories" && html`<${Categories} ...${common} close=${actions.close} />`}
    ${view.dialog === "token" && html`<${Token} t=${t} give=${actions.token} />`}
  `;
}

/** The policy allows no style attributes: properties are set by script. */
function useProperty(name, value) {
  const element = useRef(null);
  useEffect(() => element.current?.style.setProperty(name, value), [value]);
  return element;
}

function Swatch({ colour }) {
  return html`<span class="swatch" ref=${useProperty("--colour", colour)} aria-hidden="true"></span>`;
}

function Top({ state, session, actions, t }) {
  const { categories, category, server, unsaved } = state;
  const saving = server !== "ok" ? server : unsaved ? "saving" : "saved";
  return html`
    <header class="an__top">
      <div class="an__categories">
        <div class="segment segment--dark" role="group" aria-label=${t("categories")}>
          ${categories.map(
            (one, i) => html`
              <button
                key=${one.id} class="segment__item an__category" data-testid=${`category-${i + 1}`}
                aria-pressed=${one.id === category} onClick=${() => session.setCategory(one.id)}
              >
                <${Swatch} colour=${colourOf(categories, one.id)} />${one.name}${i < 9 && html`<kbd>${i + 1}</kbd>`}
              </button>
            `,
          )}
          <button class="segment__item" data-testid="edit-categories" onClick=${actions.categories}>
            ${t("edit-categories")}
          </button>
        </div>
      </div>
      <div class="an__tools">
        <span class="pill" data-testid="save-state" data-state=${saving} role="status">
          <span class="pill__lamp" aria-hidden="true"></span>${t(`status-${saving}`)}
        </span>
        <button class="button button--glass" data-testid="export" onClick=${actions.exportAll}>${t("export")}</button>
        <button class="button button--glass button--round" data-testid="help" aria-label=${t("help")} onClick=${actions.help}>
          ?
        </button>
      </div>
    </header>
  `;
}

/** The stage itself is made once, by hand: its canvases are no business of a renderer. */
function Photo({ state, actions, t }) {
  const { photos, index, state: name, slow, mode, message } = state;
  const place = useRef(null);
  useEffect(() => actions.mount(place.current), []);
  const photo = photos[index];
  return html`
    <main class="an__stage-area">
      <div
        class="an__stage" ref=${place} tabindex="0" role="application" data-testid="stage" data-mode=${mode}
        aria-label=${t("stage")} aria-describedby="stage-keys"
      ></div>
      <p id="stage-keys" class="visually-hidden">${t("stage-keys")}</p>
      <div class="an__facts">
        ${photo &&
        html`<p class="pill" data-testid="photo-name">
          <span>${index + 1} / ${photos.length} · ${photo.name}</span>
          ${photo.status !== "open" && html`<em data-status=${photo.status}>${t(`photo-${photo.status}`)}</em>`}
        </p>`}
        ${name === "analysing" &&
        html`<p class="pill" data-testid="analysing">
          <span class="spinner" aria-hidden="true"></span>${t(slow ? "analysing-slow" : "analysing")}
        </p>`}
      </div>
      ${name === "empty" && html`<p class="an__blank" data-testid="empty">${t("empty")}</p>`}
      ${name === "broken" &&
      html`<div class="an__blank" data-testid="broken"><strong>${t("broken")}</strong><span>${photo?.trouble}</span></div>`}
      <p
        class="an__toast" data-testid="toast" data-kind=${message?.kind} role="status" aria-live="polite"
        hidden=${!message}
      >
        ${message && t(message.text, message.values)}
      </p>
    </main>
  `;
}

function Folder({ state, t }) {
  const { progress, folder } = state;
  const finished = progress ? progress.done + progress.skipped : 0;
  const total = progress ? progress.total - progress.broken : 0;
  const bar = useProperty("--share", `${total ? (100 * finished) / total : 0}%`);
  return html`
    <div class="an__folder">
      <h1>${folder || t("title")}</h1>
      <div
        class="progress" role="progressbar" aria-label=${t("progress")} data-testid="progress"
        aria-valuemin="0" aria-valuemax=${total} aria-valuenow=${finished}
      >
        <div class="progress__bar" ref=${bar}></div>
        ${progress ? t("progress-text", { n: finished, total }) : ""}
      </div>
    </div>
  `;
}

function Objects({ state, session, t }) {
  const { work, categories, selected } = state;
  const objects = work?.list.present ?? [];
  return html`
    <section class="objects" aria-label=${t("objects")}>
      <h2>${t("objects")} ${objects.length > 0 && html`(${objects.length})`}</h2>
      <ol class="objects__list">
        ${objects.map(
          (object, i) => html`
            <li
              key=${i} class=${`object ${i === selected ? "object--picked" : ""}`} data-testid="object"
              data-category=${object.category}
            >
              <button class="button object__pick" aria-pressed=${i === selected} onClick=${() => session.select(i)}>
                <${Swatch} colour=${colourOf(categories, object.category)} />
                <span>${categories.find((c) => c.id === object.category)?.name}</span>
                ${object.score !== null && html`<small>${Math.round(object.score * 100)} %</small>`}
              </button>
              <button
                class="button button--square" aria-label=${t("remove-object", { n: i + 1 })}
                data-testid=${`remove-object-${i}`} onClick=${() => session.removeObject(i)}
              >
                ✕
              </button>
            </li>
          `,
        )}
        ${!objects.length && html`<li class="objects__hint">${t(session.step ? "hint-accept" : "hint-point")}</li>`}
      </ol>
    </section>
  `;
}

function Actions({ state, session, t }) {
  const { work, state: name, mode, index, photos } = state;
  const masks = session.step?.answer?.masks ?? [];
  const undoable = Boolean(work && (work.prompts.canUndo || work.list.canUndo));
  const bare = work && !session.step && !work.list.present.length;
  const toggle = () => session.store.set({ mode: mode === "remove" ? "keep" : "remove" });
  const quiet = "button button--quiet";
  return html`
    <div class="an__actions" role="group" aria-label=${t("actions")}>
      <span class="an__score" data-testid="score">
        ${masks.length > 0 && t("mask-score", { score: Math.round(masks[session.step.chosen].iou_prediction * 100) })}
      </span>
      <button class=${quiet} data-testid="next-mask" disabled=${masks.length < 2} onClick=${() => session.nextMask()}>
        ${t("other-mask")} <kbd>M</kbd>
      </button>
      <button class=${quiet} data-testid="undo" disabled=${!undoable} onClick=${() => session.undo()}>
        ${t("undo")} <kbd>${t("key-undo")}</kbd>
      </button>
      <button class=${quiet} data-testid="mode-remove" aria-pressed=${mode === "remove"} onClick=${toggle}>
        ${t("mode-remove")} <kbd>X</kbd>
      </button>
      ${bare
        ? html`<button
            class="${quiet} button--wide" data-testid="no-product" disabled=${!work.loaded}
            onClick=${() => session.finish({ empty: true })}
          >
            ${t("no-product")} <kbd>⇧ ↵</kbd>
          </button>`
        : html`<button
            class="${quiet} button--wide" data-testid="accept" disabled=${name !== "masked"}
            onClick=${() => session.accept()}
          >
            ${t("accept")} <kbd>N</kbd>
          </button>`}
      <button
        class="button button--primary button--big button--wide" data-testid="finish" disabled=${!work?.loaded}
        onClick=${() => session.finish()}
      >
        ${t("finish")} <kbd>↵</kbd>
      </button>
      <button class="${quiet} button--wide" data-testid="skip" disabled=${!work} onClick=${() => session.skip()}>
        ${t("skip")} <kbd>S</kbd>
      </button>
      <button class=${quiet} data-testid="previous" disabled=${index < 1} onClick=${() => session.neighbour(-1)}>
        <kbd>←</kbd> ${t("previous")}
      </button>
      <button
        class=${quiet} data-testid="next" disabled=${index + 1 >= photos.length} onClick=${() => session.neighbour(1)}
      >
        ${t("next")} <kbd>→</kbd>
      </button>
    </div>
  `;
}

function Strip({ state, thumbs, actions, t }) {
  const { photos, index } = state;
  const current = useRef(null);
  const from = Math.max(0, index - STRIP_AROUND);
  const shown = photos.slice(from, index + STRIP_AROUND + 1);
  useEffect(() => {
    current.current?.scrollIntoView({ inline: "center", block: "nearest" });
    const order = shown.map((photo, i) => [Math.abs(from + i - index), photo]).sort((a, b) => a[0] - b[0]);
    thumbs.want(order.filter(([, photo]) => photo.status !== "broken").map(([, photo]) => photo.key));
  }, [index, photos.length]);
  return html`
    <nav class="an__strip" aria-label=${t("photos")}>
      ${shown.map((photo, i) => {
        const at = from + i;
        const address = thumbs.get(photo.key);
        return html`
          <button
            key=${photo.key} ref=${at === index ? current : null} class="thumb" data-testid="thumb"
            data-status=${photo.status} aria-current=${at === index ? "true" : null}
            aria-label=${t("thumb", { n: at + 1, name: photo.name, status: t(`photo-${photo.status}`) })}
            onClick=${() => actions.open(at)}
          >
            ${address ? html`<img src=${address} alt="" />` : html`<span>${at + 1}</span>`}
            ${MARKS[photo.status] && html`<span class="thumb__mark" aria-hidden="true">${MARKS[photo.status]}</span>`}
          </button>
        `;
      })}
    </nav>
  `;
}

/** A modal dialog: the focus stays inside, Escape closes it, and the focus goes back. */
function Dialog({ label, children, close, testid }) {
  const element = useRef(null);
  useEffect(() => {
    const dialog = element.current;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  const cancel = (event) => {
    event.preventDefault();
    close?.();
  };
  return html`<dialog class="an__dialog" ref=${element} aria-label=${label} data-testid=${testid} onCancel=${cancel}>
    ${children}
  </dialog>`;
}

const KEYS = [
  ["click", "help-click"], ["right", "help-right"], ["drag", "help-drag"], ["M", "help-mask"], ["N", "help-accept"],
  ["↵", "help-finish"], ["⇧ ↵", "help-empty"], ["S", "help-skip"], ["← →  J K", "help-neighbour"],
  ["1 … 9", "help-category"], ["undo", "help-undo"], ["Del", "help-remove"], ["Esc", "help-clear"], ["X", "help-mode"],
  ["cross", "help-cross"], ["?", "help-help"],
];

function Help({ t, close }) {
  const named = { click: "key-click", right: "key-right", drag: "key-drag", undo: "key-undo", cross: "key-cross" };
  return html`
    <${Dialog} label=${t("help")} close=${close} testid="help-overlay">
      <h2>${t("help")}</h2>
      <dl class="an__keys">
        ${KEYS.map(([key, text]) => html`<dt><kbd>${key in named ? t(named[key]) : key}</kbd></dt><dd>${t(text)}</dd>`)}
      </dl>
      <button class="button button--primary" data-testid="help-close" onClick=${close}>${t("close")}</button>
    <//>
  `;
}

function Categories({ t, session, actions, close }) {
  const form = useRef(null);
  const { categories } = session.state;
  const submit = (event) => {
    event.preventDefault();
    const fields = [...form.current.querySelectorAll("input")];
    const wanted = fields
      .map((field) => ({ ...(field.dataset.id ? { id: Number(field.dataset.id) } : {}), name: field.value.trim() }))
      .filter((one) => one.name || one.id);
    actions.saveCategories(wanted);
  };
  return html`
    <${Dialog} label=${t("categories")} close=${close} testid="categories-dialog">
      <h2>${t("categories")}</h2>
      <p>${t("categories-text")}</p>
      <form class="an__form" ref=${form} onSubmit=${submit}>
        ${categories.map(
          (one) => html`<input key=${one.id} data-id=${one.id} value=${one.name} maxlength="64" required aria-label=${t("category")} />`,
        )}
        <input data-testid="new-category" maxlength="64" placeholder=${t("new-category")} aria-label=${t("new-category")} />
        <div class="an__row">
          <button type="button" class="button button--quiet" onClick=${close}>${t("cancel")}</button>
          <button class="button button--primary" data-testid="save-categories">${t("save")}</button>
        </div>
      </form>
    <//>
  `;
}

function Token({ t, give }) {
  const field = useRef(null);
  const submit = (event) => {
    event.preventDefault();
    give(field.current.value);
  };
  return html`
    <${Dialog} label=${t("token")} testid="token-dialog">
      <h2>${t("token")}</h2>
      <p>${t("token-text")}</p>
      <form class="an__form" onSubmit=${submit}>
        <input ref=${field} type="password" autocomplete="off" required aria-label=${t("token")} data-testid="token" />
        <button class="button button--primary" data-testid="token-give">${t("go-on")}</button>
      </form>
    <//>
  `;
}
