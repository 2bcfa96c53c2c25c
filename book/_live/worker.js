/* The worker: Python in the browser, off the page's thread.
 *
 * It is told where things are ("start"), loads Pyodide and the engine while it counts bytes, and then answers
 * requests one after the other through mmcore.viz.live.handle(). All it ever fetches lies beside it.
 */
let handle = null;

/* Load the pieces side by side. `part` is called with the bytes of each piece that arrives. */
async function load(places, part) {
  // The addresses carry a digest of what they hold: what the browser has is never out of date.
  const get = (url) => fetch(url, { cache: "force-cache" }).then((answer) => {
    if (!answer.ok) throw new Error(`${answer.status} for ${url}`);
    return answer;
  });
  const counted = (answer) => answer.body.pipeThrough(new TransformStream({
    transform(chunk, out) { part(chunk.byteLength); out.enqueue(chunk); },
  }));
  const bytes = async (url) => new Uint8Array(await new Response(counted(await get(url))).arrayBuffer());

  // Hosts differ in what they compress, so WebAssembly is stored compressed and unpacked here.
  const wasm = get(places.pyodide + "pyodide.asm.wasm.gz").then(async (answer) => {
    const [first, stream] = await peek(counted(answer));
    const packed = first[0] === 0x1f && first[1] === 0x8b; // a host may have unpacked it already
    const body = packed ? stream.pipeThrough(new DecompressionStream("gzip")) : stream;
    return new Response(body, { headers: { "Content-Type": "application/wasm" } });
  });
  const library = bytes(places.pyodide + "python_stdlib.zip");
  const engine = bytes(places.engine);
  const glue = import(places.pyodide + "pyodide.asm.js").then((module) => { part(places.glueBytes); return module.default; });
  const { loadPyodide } = await import(places.pyodide + "pyodide.js");

  // Pyodide fetches these two itself: hand it what is already on its way.
  const ready = { "pyodide.asm.wasm": wasm, "python_stdlib.zip": library.then((data) => new Response(data)) };
  const fetchOutside = self.fetch;
  self.fetch = (what, how) => {
    const name = String(what && what.url ? what.url : what).split("/").pop();
    return name in ready ? ready[name] : fetchOutside(what, how);
  };
  const python = await loadPyodide({
    indexURL: places.pyodide,
    packageBaseUrl: places.pyodide,
    lockFileContents: places.lock,
    createPyodideModule: await glue,
    env: { HOME: "/home", MMCORE_BOOK: "1", PYTHONDONTWRITEBYTECODE: "1", PYTHONHASHSEED: "0" },
  });
  self.fetch = fetchOutside;
  python.unpackArchive(await engine, "wheel", { extractDir: "/engine" });
  return python;
}

/* Return the first bytes of a stream, and the stream as it was. */
async function peek(stream) {
  const reader = stream.getReader();
  const { value, done } = await reader.read();
  const whole = new ReadableStream({
    start(out) { if (done) out.close(); else out.enqueue(value); },
    async pull(out) {
      const next = await reader.read();
      if (next.done) out.close(); else out.enqueue(next.value);
    },
  });
  return [value || new Uint8Array(0), whole];
}

/* Fetch a capture while Python waits for it, which only a worker can do. */
function captureBytes(base, path) {
  const request = new XMLHttpRequest();
  request.open("GET", base + path, false);
  request.responseType = "arraybuffer";
  request.send();
  if (request.status !== 200) throw new Error(`${request.status} for ${path}`);
  return new Uint8Array(request.response);
}

async function start(places) {
  let loaded = 0;
  const python = await load(places, (n) => { loaded += n; postMessage({ loaded }); });
  postMessage({ starting: true });
  const live = python.runPython(`
import os, sys
sys.path.insert(0, "/engine")
os.makedirs("/home/book", exist_ok=True)
os.chdir("/home")
from mmcore.viz import live
live
`);
  live.provide_captures(python.toPy(places.captures), (path) => captureBytes(places.captureBase, path), "/home");
  handle = live.handle;
}

onmessage = async ({ data }) => {
  if (data.start) {
    try {
      await start(data.start);
      postMessage({ ready: true });
    } catch (error) {
      postMessage({ failed: String(error && error.message ? error.message : error) });
    }
    return;
  }
  const tick = (n) => postMessage({ id: data.id, tick: n });
  try {
    const answer = handle(data.operation, JSON.stringify(data.asked), tick, data.bytes || undefined);
    postMessage({ id: data.id, answer: JSON.parse(answer) });
  } catch (error) {
    postMessage({ id: data.id, answer: { error: { param: "", text: `Python stopped: ${String(error).slice(0, 300)}` } }, broken: true });
  }
};
