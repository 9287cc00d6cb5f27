/** The live picture with its shutter; without a camera, a place to put a photo. */

import { html, useEffect, useRef } from "../../vendor/preact.js";
import { paintAmbient } from "../lib/ambient.js";
import { contain } from "../lib/geometry.js";
import { Icon } from "../lib/icons.js";

const AMBIENT_MS = 400;

/** Brackets on the film itself, and its own light around it, wherever the screen's shape leaves room. */
function useFilm(video, area, ambient, live) {
  useEffect(() => {
    if (!live) return undefined;
    const place = () => {
      const { videoWidth, videoHeight } = video.current;
      const { clientWidth: width, clientHeight: height } = area.current;
      if (!videoWidth || !width) return;
      const fit = contain(videoWidth, videoHeight, { width, height });
      for (const name of ["x", "y", "width", "height"])
        area.current.style.setProperty(`--film-${name}`, `${fit[name]}px`);
    };
    const glow = () => {
      if (document.hidden || !video.current?.videoWidth || area.current.inert) return;
      paintAmbient(ambient.current, video.current);
    };
    const observer = new ResizeObserver(place);
    observer.observe(area.current);
    const film = video.current;
    film.addEventListener("resize", place);
    const timer = setInterval(glow, AMBIENT_MS);
    place();
    return () => {
      observer.disconnect();
      film.removeEventListener("resize", place);
      clearInterval(timer);
    };
  }, [live]);
}

export function CameraView({ kiosk, state, t, phase }) {
  const [video, area, ambient] = [useRef(null), useRef(null), useRef(null)];
  const { stream, camera, booth } = state;
  const live = camera.state === "live";
  useEffect(() => {
    const element = video.current;
    kiosk.video = element;
    kiosk.set({ filming: false });
    element.srcObject = stream ?? null;
    if (stream) element.play().catch(() => {}); // it plays by itself as soon as the page is seen
  }, [stream]);
  useFilm(video, area, ambient, live);
  const here = !state.photo;
  const shutter = useRef(null);
  useEffect(() => {
    // A key, a foot switch or a button at the booth can shoot: it only has to send Enter or a space.
    if (here && phase === "camera" && document.activeElement === document.body) shutter.current?.focus();
  }, [here, phase]);
  return html`
    <section class="camera ${here ? "" : "camera--behind"}" ref=${area} inert=${!here} aria-label=${t("camera.title")}>
      <canvas class="ambient" ref=${ambient} aria-hidden="true"></canvas>
      <video
        class="camera__film"
        ref=${video}
        muted
        playsinline
        autoplay
        aria-hidden="true"
        onLoadedData=${() => kiosk.set({ filming: true })}
      ></video>
      ${phase === "camera" && html`<div class="camera__frame" aria-hidden="true"><i></i><i></i><i></i><i></i></div>`}
      ${state.flash > 0 && html`<div class="camera__flash" key=${`flash${state.flash}`} aria-hidden="true"></div>`}
      ${phase === "starting" && html`<p class="camera__wait"><span class="spinner"></span>${t("camera.starting")}</p>`}
      ${phase === "no-camera" && html`<${NoCamera} ...${{ kiosk, state, t }} />`}
      ${
        here &&
        phase === "camera" &&
        html` <div class="shutter-bar">
          ${!booth.on && html`<h1 class="camera__title">${t("camera.headline")}</h1>`}
          <div class="shutter-bar__side shutter-bar__side--left"><${OpenFile} ...${{ kiosk, t }} /></div>
          <button
            class="shutter"
            data-testid="shutter"
            ref=${shutter}
            aria-label=${t("action.shoot")}
            disabled=${Boolean(state.shooting)}
            onClick=${() => (booth.on ? kiosk.booth.again() : kiosk.shoot())}
          >
            <span></span>
          </button>
          <div class="shutter-bar__side shutter-bar__side--right">
            ${
              state.number.kind !== "none" &&
              html` <button
                class="button button--glass"
                data-testid="number"
                aria-label=${t("number.drop", { text: state.number.text })}
                onClick=${() => kiosk.setNumber("")}
              >
                <${Icon} name="barcode" /><span class="number">${state.number.text}</span><${Icon} name="close" />
              </button>`
            }
          </div>
        </div>`
      }
    </section>
  `;
}

export function OpenFile({ kiosk, t, primary = false }) {
  const input = useRef(null);
  return html`
    <button
      class="button ${primary ? "button--primary button--big" : "button--glass"}"
      data-testid="open-file"
      onClick=${() => input.current.click()}
    >
      <${Icon} name="photo" /><span class="label">${t("action.open")}</span>
    </button>
    <input
      class="visually-hidden"
      type="file"
      accept="image/*"
      tabindex="-1"
      aria-hidden="true"
      data-testid="file-input"
      ref=${input}
      onChange=${(event) => {
        const [file] = event.target.files;
        event.target.value = "";
        if (file) void kiosk.open(file);
      }}
    />
  `;
}

function NoCamera({ kiosk, state, t }) {
  const { camera } = state;
  const lost = camera.state === "lost";
  return html`
    <div class="no-camera" role=${lost ? "alert" : undefined}>
      <div class="no-camera__art"><${Icon} name=${lost ? "camera-off" : "photo"} /></div>
      <h1>${t(lost ? "camera.lost" : "camera.none")}</h1>
      <p>${t(lost ? "camera.lost.text" : `camera.none.${camera.reason || "missing"}`)}</p>
      <${OpenFile} ...${{ kiosk, t, primary: true }} />
      <p class="no-camera__ways">${t("camera.ways")}</p>
      ${
        camera.reason !== "insecure" &&
        html` <button
          class="button button--quiet-dark"
          data-testid="camera-again"
          onClick=${() => kiosk.camera.start()}
        >
          <${Icon} name="again" /><span>${t("action.camera-again")}</span>
        </button>`
      }
    </div>
  `;
}
