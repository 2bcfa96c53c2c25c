/* "Run it live" on an explorable: its controls, and the same Python function run again with the reader's values. */
import { readAddress, writeAddress } from "./address.js";
import { makeControl } from "./controls.js";
import { button, el, freshId, fromEngine } from "./dom.js";
import { runtime, Stopped, whyNot } from "./runtime.js";
import { Status } from "./status.js";

class LiveFigure {
  constructor(figure) {
    this.figure = figure;
    this.name = figure.dataset.mm;
    this.printed = JSON.parse(figure.dataset.values); // what the page was built with, where not the default
    this.controls = null;
    this.status = new Status();
    this.startButton = button("Run it live", { class: "mm-do mm-run" }, () => this.open());
    this.offer = el("div", { class: "mm-offer" }, this.startButton, this.status.box);
    this.box = el("div", { class: "mm-live d-print-none" }, this.offer);
    figure.before(this.box);
    this.invite();
  }

  get id() {
    return this.figure.id;
  }

  /* Say so where the page's address has other values for this figure. */
  invite() {
    const values = readAddress().get(this.id);
    if (!values) return;
    if (this.controls) {
      this.set(values);
      return;
    }
    const list = Object.entries(values).map(([name, value]) => `${name} = ${value}`).join(", ");
    this.startButton.textContent = "Run it live with the values of this link";
    this.status.say(list.length > 300 ? `${list.slice(0, 297)}...` : list);
    this.box.scrollIntoView({ block: "start" });
  }

  async open() {
    const reason = whyNot();
    if (reason) {
      this.status.say(reason);
      return;
    }
    this.startButton.setAttribute("aria-disabled", "true");
    const values = { ...this.printed, ...(readAddress().get(this.id) || {}) };
    await this.run(values);
    if (!this.controls) {
      this.startButton.setAttribute("aria-disabled", "false");
      this.startButton.textContent = "Run it live";
    }
  }

  /* Ask Python for the frames of these values. While it is busy only the latest values wait. */
  async run(values) {
    if (this.running) {
      this.pending = values;
      return;
    }
    this.running = true;
    try {
      for (let next = values; next; ) {
        this.pending = null;
        const began = performance.now();
        const answer = await this.status.during((tick) =>
          runtime.call("figure", { name: this.name, values: next, prefix: this.id }, tick));
        this.take(answer, next, performance.now() - began);
        next = this.pending;
      }
    } catch (error) {
      this.status.say(error instanceof Stopped
        ? "Stopped. Change a value, or press the button again, to go on."
        : `Python could not be started here: ${error.message}. The steps below work without it.`);
    } finally {
      this.running = false;
    }
  }

  take(answer, asked, milliseconds) {
    if (!this.controls && answer.controls) this.build(answer.controls, asked);
    const wrong = answer.error || { param: "", text: "" };
    let said = false;
    for (const control of this.controls || []) {
      const mine = wrong.param !== "" && control.param.name === wrong.param;
      control.say(mine ? wrong.text : "");
      said = said || mine;
    }
    if (answer.error) {
      const words = wrong.text.charAt(0).toUpperCase() + wrong.text.slice(1);
      this.status.say(said ? "The drawing shows the last values that worked." : `${words}.`.replace(/\.\.$/, "."));
      return;
    }
    this.replace(answer.html, asked);
    const n = answer.frames;
    this.status.say(`${n} step${n === 1 ? "" : "s"}, computed here in ${Math.max(0.01, milliseconds / 1000).toFixed(2)} s.`);
    this.remember(answer.values);
  }

  build(described, values) {
    const changed = () => this.run(this.values());
    this.controls = described.params.map((param) =>
      makeControl(param, param.name in values ? values[param.name] : param.default, changed));
    const title = el("p", { class: "mm-live-panel-title", id: freshId("mm-live-panel") }, described.help || described.title);
    const reset = button("Reset", { title: "all values back to those printed in the book" }, () => {
      this.set({});
    });
    this.panel = el("div", { class: "mm-live-panel", role: "group", "aria-labelledby": title.id }, title,
      ...this.controls.map((control) => control.box),
      el("div", { class: "mm-live-panel-foot" }, reset, this.status.box));
    const focused = this.offer.contains(document.activeElement) || document.activeElement === document.body;
    this.offer.replaceWith(this.panel);
    if (focused && this.controls.length) this.controls[0].input.focus({ preventScroll: true });
  }

  values() {
    return Object.fromEntries(this.controls.map((control) => [control.param.name, control.read()]));
  }

  /* Set every control: to @values where given, else to what is printed. */
  set(values) {
    const wanted = { ...this.printed, ...values };
    for (const control of this.controls) {
      const { name, default: usual } = control.param;
      control.write(name in wanted ? wanted[name] : usual);
    }
    this.run(this.values());
  }

  /* Show the new frames: at the same step, or at the last one where an action was added. */
  replace(html, asked) {
    const [fresh] = fromEngine(html);
    const script = this.controls.find((control) => control.param.kind === "actions");
    const acted = script && this.shown && this.shown[script.param.name] !== asked[script.param.name];
    const step = this.figure.mmStep ? this.figure.mmStep() : 0;
    const focused = this.figure.contains(document.activeElement);
    this.figure.replaceWith(fresh);
    this.figure = fresh;
    window.mmFigures.start(fresh.parentNode);
    if (fresh.mmShow) fresh.mmShow(acted ? Infinity : step);
    if (focused) fresh.querySelector(".mm-stage").focus({ preventScroll: true });
    this.shown = asked;
    fresh.dispatchEvent(new CustomEvent("mm-computed", { bubbles: true }));
  }

  /* Keep in the address what differs from what is printed. */
  remember(values) {
    const differ = {};
    for (const { param } of this.controls) {
      const printed = param.name in this.printed ? this.printed[param.name] : param.default;
      if (String(values[param.name]) !== String(printed)) differ[param.name] = values[param.name];
    }
    writeAddress(this.id, differ);
  }
}

export function liveFigures(root) {
  const made = [...root.querySelectorAll(".mm-fig[data-values]")].map((figure) => new LiveFigure(figure));
  window.addEventListener("hashchange", () => made.forEach((figure) => figure.invite()));
  return made;
}
