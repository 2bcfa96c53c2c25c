/* The page's address keeps the values of its live figures: #live/ID?name=value&.../ID?... */
const PREFIX = "#live/";

/* Return a map from figure id to its values, as text. */
export function readAddress() {
  const found = new Map();
  if (!location.hash.startsWith(PREFIX)) return found;
  for (const part of location.hash.slice(PREFIX.length).split("/")) {
    const cut = part.indexOf("?");
    if (cut < 1) continue;
    const id = decodeURIComponent(part.slice(0, cut));
    found.set(id, Object.fromEntries(new URLSearchParams(part.slice(cut + 1))));
  }
  return found;
}

/* Put a figure's values into the address; those that are as printed are left out. */
export function writeAddress(id, values) {
  const all = readAddress();
  if (Object.keys(values).length) all.set(id, values);
  else all.delete(id);
  const parts = [...all].map(([figure, its]) => `${encodeURIComponent(figure)}?${new URLSearchParams(its)}`);
  if (!parts.length && !location.hash.startsWith(PREFIX)) return;
  const address = location.pathname + location.search + (parts.length ? PREFIX + parts.join("/") : "");
  history.replaceState(history.state, "", address);
}
