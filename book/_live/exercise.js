/* Exercises that answer back: a field for each step of a prediction, and the first step at which it differs from what the
 * engine does. Where an exercise has many cases, a new one is drawn from a seed. */
import { button, el, freshId, fromEngine } from "./dom.js";
import { runtime, Stopped, whyNot } from "./runtime.js";
import { Status } from "./status.js";

const FIELDS = 24; // an exercise with more steps takes code, not fields

class Exercise {
  constructor(verdict, about) {
    this.name = about.name;
    this.printed = about;
    this.problem = el("p", { "aria-live": "polite" });
    this.fields = el("div", { class: "mm-answers" });
    this.result = el("div", { "aria-live": "polite" });
    this.status = new Status();
    const others = about.varies
      ? [button("New problem", { title: "another case, drawn from a new seed" }, () => this.draw()),
        this.back = button("The book's own", { hidden: true }, () => this.pose(this.printed))]
      : [];
    this.form = el("form", { class: "mm-exercise-form d-print-none", onsubmit: (event) => { event.preventDefault(); this.check(); } },
      this.problem, this.fields,
      el("div", { class: "mm-live-panel-foot" }, el("button", { type: "submit", class: "mm-do mm-run" }, "Check"), ...others, this.status.box),
      this.result);
    verdict.replaceWith(this.form);
    this.pose(about);
  }

  /* Put up a case: its parameters in words, and a field for each step. */
  pose({ params, labels, given = "" }, seed = null) {
    this.params = params;
    const which = seed === null ? "Your prediction" : `Problem ${seed}${given ? `, with ${given}` : ""}. Your prediction`;
    this.problem.textContent = labels.length > 1 ? `${which}, step by step:` : `${which}:`;
    this.inputs = labels.map(() => el("input", { type: "text", id: freshId("mm-answer"), autocomplete: "off", autocapitalize: "off", spellcheck: "false" }));
    this.fields.replaceChildren(...labels.map((label, i) => el("div", {}, el("label", { for: this.inputs[i].id }, label), this.inputs[i])));
    this.result.replaceChildren();
    this.status.say("");
    if (this.back) this.back.hidden = seed === null;
  }

  async draw() {
    const seed = 1 + Math.floor(Math.random() * 9999);
    const answer = await this.ask("problem", { name: this.name, seed });
    if (!answer) return;
    this.pose(answer, seed);
    this.inputs[0].focus();
  }

  async check() {
    const answers = this.inputs.map((input) => input.value);
    const answer = await this.ask("check", { name: this.name, answers, params: this.params });
    if (!answer) return;
    this.result.replaceChildren(...fromEngine(answer.html));
    this.inputs.forEach((input, i) => {
      if (!answer.right && i === answer.step - 1 && input.value.trim()) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    });
    this.status.say("");
    this.form.dispatchEvent(new CustomEvent("mm-computed", { bubbles: true }));
  }

  async ask(operation, asked) {
    const reason = whyNot();
    if (reason) {
      this.status.say(reason);
      return null;
    }
    if (this.running) return null;
    this.running = true;
    try {
      const answer = await this.status.during((tick) => runtime.call(operation, asked, tick));
      if (!answer.error) return answer;
      this.status.say(answer.error.text);
    } catch (error) {
      this.status.say(error instanceof Stopped ? "Stopped." : `Python could not be started here: ${error.message}.`);
    } finally {
      this.running = false;
    }
    return null;
  }
}

export function liveExercises(root) {
  const made = [];
  for (const verdict of root.querySelectorAll(".mm-verdict[data-exercise]")) {
    const about = JSON.parse(verdict.dataset.exercise);
    if (about.labels.length <= FIELDS) made.push(new Exercise(verdict, about));
  }
  return made;
}
