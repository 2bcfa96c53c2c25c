// Runs the engine inside Pyodide under node:
//   node tests/pyodide/run.mjs PYODIDE WHEEL PROJECT SITE SCRIPT [ARGUMENT...]
// PYODIDE: folder of the npm package; WHEEL: the built wheel of mmcore; PROJECT: folder whose tests/ and
// book/captures/ are mounted; SITE: zip of pure-Python packages (pytest ...), found after all others; SCRIPT: Python file to run, with the arguments in sys.argv. Exits with its status.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";

const [pyodideFolder, wheel, project, site, script, ...args] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(resolve(pyodideFolder, "pyodide.mjs")));
const pyodide = await loadPyodide({ env: { HOME: "/home", PYTHONHASHSEED: "0", MMCORE_PYODIDE: "1" } });
pyodide.setStdout({ batched: (line) => process.stdout.write(line + "\n") });
pyodide.setStderr({ batched: (line) => process.stderr.write(line + "\n") });

const mount = (from, to) => {
  pyodide.FS.mkdirTree(to);
  pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: resolve(from) }, to);
};
mount(resolve(project, "tests"), "/project/tests");
mount(resolve(project, "book/captures"), "/project/book/captures");
pyodide.unpackArchive(new Uint8Array(readFileSync(site)), "zip", { extractDir: "/site" });
pyodide.unpackArchive(new Uint8Array(readFileSync(wheel)), "wheel", { extractDir: "/engine" });
pyodide.globals.set("_arguments", pyodide.toPy([script, ...args]));
pyodide.globals.set("_source", readFileSync(script, "utf8"));
const status = await pyodide.runPythonAsync(`
import os, sys
sys.path.insert(0, "/engine")
sys.path.append("/site")
sys.dont_write_bytecode = True
sys.argv = list(_arguments)
os.chdir("/project")
try:
    exec(compile(_source, sys.argv[0], "exec"), {"__name__": "__main__", "__file__": sys.argv[0]})
    _status = 0
except SystemExit as stop:
    _status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
_status
`);
process.exit(status);
