/* Making elements: text is always text, never markup. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function button(words, attributes, press) {
  return el("button", { type: "button", class: "mm-do", onclick: press, ...attributes }, words);
}

/* Turn markup that the engine's own renderers made into nodes. Nothing else is ever passed here; scripts in it
   would not run. */
export function fromEngine(html) {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  return [...parsed.body.childNodes].map((node) => document.importNode(node, true));
}

let made = 0;
export function freshId(prefix) {
  made += 1;
  return `${prefix}-${made}`;
}

export function megabytes(n) {
  return (n / 1e6).toFixed(1);
}
