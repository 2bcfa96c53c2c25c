/* Everything in a page that runs Python in the reader's browser. Nothing is loaded before the reader asks for it. */
import { liveFigures } from "./figure.js";

liveFigures(document);
