/* Everything in a page that runs Python in the reader's browser. Nothing is loaded before the reader asks for it. */
import { liveCells } from "./cell.js";
import { liveExercises } from "./exercise.js";
import { liveFigures } from "./figure.js";
import { liveTools } from "./tool.js";

liveFigures(document);
liveCells(document);
liveExercises(document);
liveTools(document);
