/* A tool of the workbench: a reader's text goes to Python in this page, and the answer comes back. Nothing leaves the
 * machine: the page's policy allows no request to another host, and none is made. */
import { button, el, freshId, fromEngine, megabytes } from "./dom.js";
import { runtime, Stopped, whyNot } from "./runtime.js";
import { Status } from "./status.js";

const SHOWN = 400000; // characters of an answer that are shown
const FIELD = 300000; // bytes of a file that still fit the field

const WRAPPED = 88; // the engine breaks its sentences here or later

/* An answer as paragraphs that wrap at the page's width, and rows of tables that keep their columns. What is in a
 * paragraph was one before the engine broke it: its next word would not have fitted. The first one is the answer. */
function paragraphs(text) {
  const made = [];
  for (const line of text.split(/(?<=\n)/)) {
    const row = !line.trim() || /\S {3,}|^ {12}/.test(line);
    const indent = line.search(/\S|$/);
    const last = made[made.length - 1];
    const joins = last && !row && !last.row && (indent === last.indent || (indent > last.indent && /[,;]\s*$/.test(last.text)))
      && last.length + 1 + line.trim().split(" ")[0].length > WRAPPED;
    if (joins) last.text += line;
    else made.push({ text: line, row, indent });
    made[made.length - 1].length = line.trimEnd().length;
  }
  return made.map((part, i) => {
    const span = el("span", { class: part.row ? "mm-row" : i ? "mm-sentence" : "mm-sentence mm-first" }, part.text);
    if (!part.row) span.style.paddingLeft = `${part.indent}ch`;
    return span;
  });
}

class Tool {
  constructor(box) {
    this.box = box;
    this.name = box.dataset.tool;
    const about = JSON.parse(box.dataset.about);
    this.file = null;
    const id = freshId("mm-tool");
    this.input = el("textarea", {
      id, rows: about.rows || 6, placeholder: about.placeholder || "", spellcheck: "false", autocomplete: "off",
      autocapitalize: "off", class: "mm-tool-input", "aria-describedby": `${id}-error`, oninput: () => this.forget(),
      onkeydown: (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.run(); },
    });
    this.picker = el("input", { type: "file", hidden: true, "aria-label": "File", onchange: () => this.opened() });
    this.fileWords = el("p", { class: "mm-help", role: "status" });
    this.error = el("p", { class: "mm-control-error", id: `${id}-error`, role: "alert" });
    this.status = new Status();
    this.output = el("div", { class: "mm-tool-output", tabindex: "0", role: "region", "aria-label": `Answer: ${about.title}`, hidden: true });
    const form = el("div", { class: "mm-tool-form d-print-none" },
      el("label", { for: id }, about.prompt || about.title), this.input, this.picker, this.fileWords,
      el("div", { class: "mm-live-panel-foot" },
        button("Run", { class: "mm-do mm-run" }, () => this.run()),
        button("Example", {}, () => { this.forget(); this.input.value = about.example; this.run(); }),
        button("Open a file", {}, () => this.picker.click()),
        button("Clear", {}, () => this.clear()),
        this.status.box),
      this.error, this.output);
    box.prepend(form);
    box.querySelector("details").open = false;
  }

  async opened() {
    const [file] = this.picker.files;
    this.picker.value = "";
    if (!file) return;
    this.clear();
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (bytes.length <= FIELD && !bytes.includes(0)) {
      this.input.value = new TextDecoder().decode(bytes);
    } else {
      this.file = bytes;
      this.fileWords.textContent = `${file.name}, ${megabytes(bytes.length)} MB: too large for the field, and ready to run.`;
    }
    this.run();
  }

  forget() {
    this.file = null;
    this.fileWords.textContent = "";
  }

  clear() {
    this.forget();
    this.input.value = "";
    this.say("");
    this.status.say("");
    this.output.hidden = true;
    this.output.replaceChildren();
  }

  say(words) {
    this.error.textContent = words;
    if (words) this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
  }

  async run() {
    const reason = whyNot();
    if (reason) {
      this.status.say(reason);
      return;
    }
    if (this.running) return;
    this.running = true;
    const began = performance.now();
    try {
      const asked = { tool: this.name, text: this.file ? null : this.input.value };
      const answer = await this.status.during((tick) => runtime.call("tool", asked, tick, this.file));
      this.take(answer, performance.now() - began);
    } catch (error) {
      this.status.say(error instanceof Stopped ? "Stopped." : `Python could not be started here: ${error.message}.`);
    } finally {
      this.running = false;
    }
  }

  take(answer, milliseconds) {
    const error = typeof answer.error === "object" && answer.error ? answer.error.text : answer.error;
    const where = answer.line ? `line ${answer.line}: ` : "";
    this.say(error ? where + error : "");
    this.status.say(error ? "" : `Done here in ${Math.max(0.01, milliseconds / 1000).toFixed(2)} s; nothing was sent anywhere.`);
    this.output.hidden = !answer.html && !answer.text;
    if (answer.html && !error) {
      this.output.replaceChildren(...fromEngine(answer.html));
    } else if (answer.text) {
      const cut = answer.text.length > SHOWN;
      const text = cut ? `${answer.text.slice(0, SHOWN)}\n... (${answer.text.length - SHOWN} more characters)` : answer.text;
      this.output.replaceChildren(el("pre", {}, ...paragraphs(text)));
    }
    this.box.dispatchEvent(new CustomEvent("mm-computed", { bubbles: true }));
  }
}

export function liveTools(root) {
  return [...root.querySelectorAll(".mm-tool[data-tool]")].map((box) => new Tool(box));
}
