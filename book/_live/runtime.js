/* The page's one Python: starts the worker on first use, sends it requests, tells how far it is, can stop it. */
import places from "./places.js";

export class Stopped extends Error {}

/* What is missing for Python to run in this page, in words; null where nothing is. */
export function whyNot() {
  if (!("WebAssembly" in window) || !("Worker" in window) || !("DecompressionStream" in window)) {
    return "This browser is too old to run Python in the page. The steps above work, and so do the notebooks.";
  }
  return null;
}

const here = (path) => new URL(path, import.meta.url).href;

class Runtime extends EventTarget {
  constructor() {
    super();
    this.worker = null;
    this.state = "off"; // off, loading, starting, ready
    this.loaded = 0;
    this.total = places.bytes;
    this.generation = 0; // grows with each fresh Python: what an earlier one knew is gone
    this.waiting = new Map();
    this.next = 1;
    this.started = null;
  }

  tell(name) {
    this.dispatchEvent(new Event(name));
  }

  /* Start Python unless it runs. */
  start() {
    if (this.started) return this.started;
    this.state = "loading";
    this.loaded = 0;
    this.generation += 1;
    this.worker = new Worker(here("./worker.js"), { type: "module" });
    this.started = new Promise((resolve, reject) => {
      this.giveUp = reject;
      this.worker.onmessage = ({ data }) => this.heard(data, resolve, reject);
      this.worker.onerror = (event) => {
        event.preventDefault();
        this.end(new Error(event.message || "the worker could not be started"));
      };
    });
    this.worker.postMessage({
      start: {
        pyodide: here(places.pyodide), engine: here(places.engine), glueBytes: places.glueBytes, lock: places.lock,
        captures: places.captures, captureBase: here(places.captureBase),
      },
    });
    this.tell("change");
    return this.started;
  }

  heard(data, resolve, reject) {
    if (data.id) {
      const asked = this.waiting.get(data.id);
      if (!asked) return;
      if ("tick" in data) { asked.tick(data.tick); return; }
      this.waiting.delete(data.id);
      this.tell("change");
      asked.resolve(data.answer);
      if (data.broken) this.end(new Stopped("Python has to start again"));
    } else if (data.ready) {
      this.state = "ready";
      this.tell("change");
      resolve();
    } else if (data.failed) {
      this.end(new Error(data.failed));
      reject(new Error(data.failed));
    } else {
      if (data.starting) this.state = "starting";
      else this.loaded = data.loaded;
      this.tell("change");
    }
  }

  /* Ask Python to do something; `tick` is called with a growing number while it does. `bytes` go along as they are. */
  async call(operation, asked, tick = () => {}, bytes = null) {
    await this.start();
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, tick });
      this.worker.postMessage({ id, operation, asked, bytes });
      this.tell("change");
    });
  }

  get busy() {
    return this.waiting.size > 0 || this.state === "loading" || this.state === "starting";
  }

  /* Stop whatever runs. The next request starts a fresh Python from the browser's cache. */
  stop() {
    this.end(new Stopped("stopped"));
  }

  end(error) {
    if (!this.worker) return;
    this.worker.terminate();
    this.worker = null;
    this.started = null;
    this.state = "off";
    this.giveUp(error);
    for (const asked of this.waiting.values()) asked.reject(error);
    this.waiting.clear();
    this.tell("change");
  }
}

export const runtime = new Runtime();
