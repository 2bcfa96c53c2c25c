/* Code cells that can be changed and run in the page. The cells of a page share one Python: what a cell gives is what it
 * would give if the page were run from its top, with every change the reader has made. Running one therefore runs those
 * before it that have not run, and begins anew where a cell was changed or is run again.
 */
import { button, el, freshId, fromEngine } from "./dom.js";
import { runtime, Stopped, whyNot } from "./runtime.js";
import { Status } from "./status.js";

/* All cells of a page, and what Python has run of them. */
class Chain {
  constructor() {
    this.cells = [];
    this.ran = []; // the sources that ran, in order, in the Python of this generation
    this.generation = 0;
  }

  /* Return the cells to run so that @cell has run after all those before it, and whether to begin anew. */
  plan(cell) {
    const upTo = this.cells.slice(0, cell.number + 1);
    const usable = this.generation === runtime.generation && runtime.state === "ready" && this.ran.length <= cell.number
      && this.ran.every((source, i) => source === upTo[i].source);
    return { fresh: !usable, cells: usable ? upTo.slice(this.ran.length) : upTo };
  }

  async run(cell, status) {
    const { fresh, cells } = this.plan(cell);
    const sources = cells.map(({ number, source }) => ({ id: number, source }));
    if (fresh) this.ran = [];
    const before = cells.length - 1;
    const answer = await status.during((tick) => runtime.call("cells", { cells: sources, fresh }, (n) => {
      tick(0);
      status.say(n <= before ? `Running cell ${n} of the ${before} before this one …` : "Running …");
    }));
    this.generation = runtime.generation;
    if (answer.error) throw new Error(answer.error.text);
    const failed = ({ outputs }) => outputs.some((part) => "error" in part);
    for (const [i, done] of answer.done.entries()) {
      if (!failed(done)) this.ran.push(sources[i].source);
    }
    return answer.done[answer.done.length - 1];
  }
}

class Cell {
  constructor(box, number, chain) {
    this.box = box;
    this.number = number;
    this.chain = chain;
    this.code = box.querySelector(".cell_input pre");
    this.printed = this.code.textContent.replace(/\n$/, "");
    this.output = box.querySelector(".cell_output");
    this.openButton = button("Edit and run", { class: "mm-do mm-cell-open d-print-none" }, () => this.open());
    box.querySelector(".cell_input").after(this.openButton);
  }

  get source() {
    return this.editor ? this.editor.value : this.printed;
  }

  open() {
    const id = freshId("mm-cell-editor");
    const lines = this.printed.split("\n").length;
    this.editor = el("textarea", {
      id, class: "mm-cell-editor", rows: lines + 1, spellcheck: "false", autocomplete: "off", autocapitalize: "off", wrap: "off",
      "aria-label": `Code of cell ${this.number + 1}; Shift and Enter run it`,
      onkeydown: (event) => {
        if (event.key !== "Enter" || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
        event.preventDefault();
        this.run();
      },
    });
    this.editor.value = this.printed;
    this.status = new Status();
    this.live = el("div", { class: "mm-cell-output", hidden: true });
    this.bar = el("div", { class: "mm-live-panel-foot d-print-none" },
      button("Run", { class: "mm-do mm-run", title: "Shift+Enter" }, () => this.run()),
      button("Reset", { title: "the code and the output that the book has" }, () => this.reset()),
      this.status.box);
    this.box.querySelector(".cell_input").hidden = true;
    this.openButton.replaceWith(this.editor, this.bar);
    (this.output || this.bar).after(this.live);
    this.editor.setSelectionRange(0, 0); // or a narrow field shows the end of its last line
    this.editor.focus();
  }

  reset() {
    this.editor.value = this.printed;
    this.live.hidden = true;
    if (this.output) this.output.hidden = false;
    this.status.say("As printed.");
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
      const done = await this.chain.run(this, this.status);
      if (done.id === this.number) this.show(done.outputs, performance.now() - began);
      else this.blame(done);
    } catch (error) {
      this.status.say(error instanceof Stopped ? "Stopped; the next run begins at the top of the page." : `Python could not run this: ${error.message}.`);
    } finally {
      this.running = false;
      this.box.dispatchEvent(new CustomEvent("mm-computed", { bubbles: true }));
    }
  }

  /* A cell before this one failed: say which, and show its error where it stands. */
  blame(done) {
    const cell = this.chain.cells[done.id];
    if (!cell.editor) cell.open();
    cell.show(done.outputs, 0);
    const error = done.outputs[done.outputs.length - 1].error.split("\n").pop();
    this.status.say(`This cell needs those before it, and cell ${done.id + 1} fails: ${error}`);
  }

  show(outputs, milliseconds) {
    const parts = outputs.flatMap((part) => {
      if ("html" in part) return fromEngine(part.html);
      if ("error" in part) return [el("pre", { class: "mm-cell-error", role: "alert" }, part.error)];
      return [el("pre", {}, part.text)];
    });
    this.live.replaceChildren(...parts);
    window.mmFigures.start(this.live);
    this.live.hidden = parts.length === 0;
    if (this.output) this.output.hidden = true;
    const failed = outputs.some((part) => "error" in part);
    const words = failed ? "It failed" : parts.length ? "Run here" : "Run here, without output,";
    this.status.say(milliseconds ? `${words} in ${Math.max(0.01, milliseconds / 1000).toFixed(2)} s.` : `${words}.`);
  }
}

export function liveCells(root) {
  const chain = new Chain();
  chain.cells = [...root.querySelectorAll("div.cell.tag_live")].map((box, i) => new Cell(box, i, chain));
  const place = root.querySelector(".book-get");
  if (place && chain.cells.length) {
    place.append(" Cells with the button “Edit and run” run here in the page, too; the others need JupyterLab.");
  }
  return chain;
}
