/* The line that says what Python does: loading with bytes, starting, computing, done; with a button to stop it. */
import { button, el, megabytes } from "./dom.js";
import { runtime } from "./runtime.js";

const PATIENCE = 400; // ms before a run counts as long

export class Status {
  constructor() {
    this.words = el("span", { role: "status" });
    this.bar = el("progress", { max: "1", value: "0", "aria-label": "Loading Python", hidden: true });
    this.bytes = el("span", { class: "mm-bytes", hidden: true });
    this.stopButton = button("Stop", { hidden: true }, () => runtime.stop());
    this.box = el("div", { class: "mm-status" }, this.words, this.bar, this.bytes, this.stopButton);
    this.draw = () => this.follow();
  }

  say(words) {
    if (this.words.textContent !== words) this.words.textContent = words;
  }

  /* Follow one request from its start to its end; return its answer. */
  async during(request) {
    runtime.addEventListener("change", this.draw);
    this.ticks = 0;
    this.long = false;
    const timer = setTimeout(() => { this.long = true; this.follow(); }, PATIENCE);
    this.follow();
    try {
      return await request((n) => { this.ticks = n; this.follow(); });
    } finally {
      clearTimeout(timer);
      runtime.removeEventListener("change", this.draw);
      this.stopButton.hidden = this.bar.hidden = this.bytes.hidden = true;
    }
  }

  follow() {
    const loading = runtime.state === "loading";
    const starting = runtime.state === "starting";
    this.bar.hidden = this.bytes.hidden = !loading;
    if (loading) {
      this.bar.value = Math.min(1, runtime.loaded / runtime.total);
      this.bytes.textContent = `${megabytes(runtime.loaded)} of ${megabytes(runtime.total)} MB`;
      this.say("Loading Python and the engine, once for the whole book:");
    } else if (starting) {
      this.say("Starting the engine …");
    } else if (this.long) {
      this.say(this.ticks ? `Computing, step ${this.ticks} …` : "Computing …");
    }
    this.stopButton.hidden = !(loading || starting || this.long);
  }
}
