/** The camera: opened at its best resolution, watched, opened again when it comes back. */

const TAKE_PHOTO_MS = 3000;
const AGAIN_MS = 3000;
const WANTED = { width: { ideal: 3840 }, height: { ideal: 2160 }, facingMode: { ideal: "environment" } };

/**
 * on.change({state, reason, stream}): state is off, starting, live, lost (it was there) or none; reason is denied,
 * missing, busy or insecure.
 */
export class Camera {
  constructor(on) {
    this.on = on;
    this.state = "off";
    this.reason = "";
    this.stream = null;
    this.hadOne = false;
    this.stillsFail = false;
    this.timer = null;
    this.opening = null;
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.#again());
  }

  /** Open it, or find out why not. A call while it opens gets that one's end. */
  start() {
    this.opening ??= this.#open().finally(() => {
      this.opening = null;
    });
    return this.opening;
  }

  stop() {
    clearTimeout(this.timer);
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.#tell("off");
  }

  async #open() {
    clearTimeout(this.timer);
    if (!navigator.mediaDevices?.getUserMedia) return this.#tell("none", "insecure");
    // A new try after a failure is silent: what the page offers meanwhile must stay under finger and focus.
    if (this.state === "off") this.#tell("starting");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: WANTED, audio: false });
    } catch (error) {
      this.stream = null;
      return this.#failed(error?.name ?? "");
    }
    this.hadOne = true;
    this.stillsFail = false;
    const [track] = this.stream.getVideoTracks();
    track.addEventListener("ended", () => this.#lost(track));
    this.#tell("live");
  }

  #failed(name) {
    const reasons = { NotAllowedError: "denied", SecurityError: "denied", NotReadableError: "busy" };
    this.#tell(this.hadOne ? "lost" : "none", reasons[name] ?? "missing");
    // A denial lasts until somebody changes it; anything else may pass.
    if (name !== "NotAllowedError" && name !== "SecurityError") this.#later();
  }

  #lost(track) {
    if (!this.stream?.getTracks().includes(track)) return;
    this.stream = null;
    this.#tell("lost", "missing");
    this.#later();
  }

  #later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#again(), AGAIN_MS);
  }

  #again() {
    if (this.state === "lost" || this.state === "none") void this.start();
  }

  #tell(state, reason = "") {
    [this.state, this.reason] = [state, reason];
    this.on.change({ state, reason, stream: this.stream });
  }

  /**
   * A photo: the camera's own still where it makes one within three seconds, else what the film shows.
   *
   * @param {HTMLVideoElement} video that shows the stream
   * @returns {Promise<Blob>}
   */
  async shoot(video) {
    const track = this.stream?.getVideoTracks()[0];
    if (!track || track.readyState !== "live") throw new Error("no camera");
    if (typeof ImageCapture === "function" && !this.stillsFail) {
      const still = await within(TAKE_PHOTO_MS, () => new ImageCapture(track).takePhoto());
      if (still?.size) return still;
      this.stillsFail = true; // do not wait three seconds for every photo
    }
    return frameOf(video);
  }
}

/** What the film shows right now. */
export async function frameOf(video, quality = 0.95) {
  if (!video.videoWidth) throw new Error("no picture from the camera");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
  if (!blob) throw new Error("the browser made no JPEG of the frame");
  return blob;
}

async function within(ms, make) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, ms, null);
  });
  try {
    return await Promise.race([make(), late]);
  } catch {
    return null;
  } finally {
    clearTimeout(timer);
  }
}
