/* Where a page cannot run Python, say why, in words: it was opened from a file, or the browser is too old.
 * A plain script, because the others are modules, which neither of the two loads. */
(function () {
  "use strict";
  var words = "";
  if (location.protocol === "file:") {
    words = "This page was opened from a file, and browsers let no such page run programs. Its steps work; to change " +
      "its values, open the book from a web server (make serve in a copy of the project) or as a notebook.";
  } else if (!("noModule" in document.createElement("script"))) {
    words = "This browser is too old to run the figures with other values. Their steps work, and so do the notebooks.";
  }
  if (!words) return;
  var figures = document.querySelectorAll(".mm-fig[data-values]");
  Array.prototype.forEach.call(figures, function (figure) {
    var box = document.createElement("details");
    box.className = "mm-live mm-why d-print-none";
    var summary = document.createElement("summary");
    summary.textContent = "Why this figure cannot be run here";
    var text = document.createElement("p");
    text.textContent = words;
    box.appendChild(summary);
    box.appendChild(text);
    figure.parentNode.insertBefore(box, figure);
  });
})();
