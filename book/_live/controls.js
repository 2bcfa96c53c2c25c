/* Controls made from an explorable's declared parameters: native inputs with a label, a help text, and a place for
 * what is wrong with the value. Python decides what a value means; here it is only carried.
 */
import { button, el, freshId } from "./dom.js";

const TYPING = 350; // ms of rest after which typed text counts
const MAX_SLIDER = 10000; // more steps than this are no use on a slider

function labelOf(param) {
  const words = param.label || param.name.replaceAll("_", " ");
  return param.unit && param.unit !== words ? `${words} (${param.unit})` : words;
}

function debounced(run) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(run, TYPING);
  };
}

/* One control. `changed` is called when the reader has changed the value. */
export class Control {
  constructor(param, value, changed) {
    this.param = param;
    this.changed = changed;
    this.id = freshId("mm-control");
    this.error = el("p", { class: "mm-control-error", id: `${this.id}-error`, role: "alert" });
    this.input = this.makeInput();
    this.input.id = this.id;
    const described = [this.error.id];
    let help = null;
    if (param.help) {
      help = el("p", { class: "mm-help", id: `${this.id}-help` }, param.help);
      described.unshift(help.id);
    }
    this.input.setAttribute("aria-describedby", described.join(" "));
    const label = el("label", { for: this.id, id: `${this.id}-label` }, labelOf(param));
    const field = el("div", { class: "mm-field" }, ...this.around());
    this.box = el("div", { class: `mm-control mm-control-${param.kind}` }, label, field, help, this.error);
    this.write(value);
  }

  makeInput() {
    const { kind, lines = 1 } = this.param;
    const later = debounced(() => this.changed());
    const text = { spellcheck: "false", autocomplete: "off", autocapitalize: "off", oninput: later };
    if (kind === "bool") return el("input", { type: "checkbox", onchange: () => this.changed() });
    if (kind === "choice") {
      const options = this.param.options.map(([word, shown]) => el("option", { value: word }, shown));
      return el("select", { onchange: () => this.changed() }, ...options);
    }
    if (kind === "int" || kind === "float" || kind === "seed") {
      const { min, max, step = 1 } = this.param;
      return el("input", { type: "number", min, max, step, inputmode: kind === "float" ? "decimal" : "numeric", oninput: later });
    }
    if (kind === "actions" || lines > 1) return el("textarea", { rows: Math.max(lines, 2), ...text });
    return el("input", { type: "text", ...text });
  }

  /* What stands in the field: the input and what helps to set it. */
  around() {
    const { kind, min, max, step = 1 } = this.param;
    if ((kind === "int" || kind === "float") && (max - min) / step <= MAX_SLIDER) {
      this.slider = el("input", {
        type: "range", min, max, step, "aria-labelledby": `${this.id}-label`,
        oninput: () => { this.input.value = this.slider.value; this.changed(); },
      });
      this.input.addEventListener("input", () => { this.slider.value = this.input.value; });
      return [this.slider, this.input];
    }
    if (kind === "seed") {
      const draw = () => { this.write(1 + Math.floor(Math.random() * 9999)); this.changed(); };
      return [this.input, button("New seed", {}, draw)];
    }
    return [this.input];
  }

  read() {
    return this.param.kind === "bool" ? this.input.checked : this.input.value;
  }

  write(value) {
    if (this.param.kind === "bool") this.input.checked = value === true || value === "true" || value === "1";
    else this.input.value = value;
    if (this.slider) this.slider.value = value;
  }

  /* Say what is wrong with the value, or that nothing is. */
  say(text) {
    if (this.error.textContent !== text) this.error.textContent = text;
    if (text) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }
}

/* An action script: its text, a button for each verb with fields for what the verb takes, and undo. */
export class ScriptControl extends Control {
  around() {
    this.past = [];
    this.last = null;
    const row = el("div", { class: "mm-verbs", role: "group", "aria-label": "Add an action" });
    for (const [verb, takes] of Object.entries(this.param.verbs)) {
      const fields = takes.map((param, i) => this.argument(verb, param, i, takes.length));
      const add = button(verb, { title: `add '${verb}' to the script` }, () => {
        this.append([verb, ...fields.map((field) => field.value.trim())].join(" "));
      });
      row.append(el("span", { class: "mm-verb" }, add, ...fields));
    }
    this.undoButton = button("Undo", { "aria-disabled": "true" }, () => this.undo());
    row.append(this.undoButton);
    this.input.addEventListener("input", () => this.remember());
    return [this.input, row];
  }

  argument(verb, param, i, n) {
    const name = `${param.label || "what"} ${verb} takes${n > 1 ? ` (${i + 1} of ${n})` : ""}`;
    if (param.kind === "choice") {
      const options = param.options.map(([word, shown]) => el("option", { value: word, selected: word === param.default }, shown));
      return el("select", { "aria-label": name }, ...options);
    }
    const numeric = param.kind === "int";
    return el("input", {
      type: numeric ? "number" : "text", min: numeric && param.min, max: numeric && param.max,
      value: param.default, "aria-label": name, class: "mm-argument", autocomplete: "off",
    });
  }

  write(value) {
    super.write(value);
    this.remember();
  }

  remember() {
    if (this.last !== null && this.last !== this.input.value) this.past.push(this.last);
    this.last = this.input.value;
    this.undoButton.setAttribute("aria-disabled", this.past.length ? "false" : "true");
  }

  append(step) {
    const before = this.input.value.trim().replace(/;$/, "");
    this.write(before ? `${before}; ${step}` : step);
    this.changed();
  }

  undo() {
    if (!this.past.length) return;
    this.input.value = this.past.pop();
    this.last = this.input.value;
    this.undoButton.setAttribute("aria-disabled", this.past.length ? "false" : "true");
    this.changed();
  }
}

export function makeControl(param, value, changed) {
  return new (param.kind === "actions" ? ScriptControl : Control)(param, value, changed);
}
