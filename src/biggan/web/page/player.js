// Plays the frames of a path there and back, for ever.

const FRAMES_PER_SECOND = 20; // as `biggan interpolate`

export class Player {
  #position = 0; // in frames
  #direction = 1;
  #last = 0; // time of the last step
  #isPlaying = false;
  #handle = 0; // of the next step

  /**
   * @param {HTMLElement} root with a canvas, a button and a slider
   * @param {(frame: number) => HTMLCanvasElement | null} find a frame, null if it is not drawn
   */
  constructor(root, find) {
    this.root = root;
    this.find = find;
    this.screen = /** @type {HTMLCanvasElement} */ (root.querySelector("canvas"));
    this.button = /** @type {HTMLButtonElement} */ (root.querySelector("button"));
    this.slider = /** @type {HTMLInputElement} */ (root.querySelector("input"));
    this.button.addEventListener("click", () => this.toggle());
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.screen.addEventListener("pointermove", ({ offsetX, buttons }) => {
      if (buttons) this.seek((offsetX / this.screen.clientWidth) * this.#end);
    });
  }

  get #end() {
    return Number(this.slider.max);
  }

  /** Start at the first frame, unless the visitor wants no motion. */
  restart() {
    this.seek(0);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.toggle();
  }

  toggle() {
    this.#isPlaying = !this.#isPlaying;
    this.button.textContent = this.#isPlaying ? "Pause" : "Play";
    cancelAnimationFrame(this.#handle);
    this.#last = performance.now();
    if (this.#isPlaying) this.#handle = requestAnimationFrame((now) => this.#step(now));
  }

  /** Stop at a frame. @param {number} frame */
  seek(frame) {
    if (this.#isPlaying) this.toggle();
    this.#position = Math.min(Math.max(Math.round(frame), 0), this.#end);
    this.paint();
  }

  /** Stop at a frame beside the current one. @param {number} frames */
  move(frames) {
    this.seek(this.#position + frames);
  }

  /** @param {number} now */
  #step(now) {
    if (this.root.hidden) return;
    this.#position += (this.#direction * (now - this.#last) * FRAMES_PER_SECOND) / 1000;
    this.#last = now;
    if (this.#position <= 0) this.#direction = 1;
    if (this.#position >= this.#end) this.#direction = -1;
    this.#position = Math.min(Math.max(this.#position, 0), this.#end);
    this.paint();
    this.#handle = requestAnimationFrame((next) => this.#step(next));
  }

  /** Show the current frame, which may have been drawn anew. */
  paint() {
    const frame = Math.round(this.#position);
    this.slider.value = `${frame}`;
    const drawn = this.find(frame);
    if (drawn) this.screen.getContext("2d")?.drawImage(drawn, 0, 0);
  }
}
