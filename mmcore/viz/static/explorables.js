/* Steppers of the book's figures. No dependencies, no inline handlers, nothing global but one name.
 *
 * A stepper is complete HTML without this script; what it adds is stepping. The frames share one SVG whose
 * elements say in data-f to which frames they belong; captions and descriptions are taken from the folded list.
 */
(function () {
  "use strict";

  var PERIOD = 1400; // ms per step while playing
  var calm = window.matchMedia ? window.matchMedia("(prefers-reduced-motion: reduce)") : { matches: false };

  function members(text, n) {
    var seen = new Uint8Array(n);
    text.split(",").forEach(function (part) {
      var ends = part.split("-");
      var last = Number(ends[ends.length - 1]);
      for (var i = Number(ends[0]); i <= last; i++) seen[i] = 1;
    });
    return seen;
  }

  function description(li) {
    var alt = li.querySelector(".mm-alt");
    var caption = li.querySelector(".mm-c").textContent;
    return alt.hasAttribute("data-join") ? (caption + " " + alt.textContent).trim() : alt.textContent;
  }

  // What is wider than its box can be scrolled; then the keyboard must get there too.
  function reachable(box) {
    if (box && box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }

  function start(fig) {
    if (fig.dataset.ready) return;
    fig.dataset.ready = "1";
    var steps = Array.prototype.slice.call(fig.querySelectorAll(".mm-words > ol > li"));
    var bar = fig.querySelector(".mm-bar");
    var n = steps.length;
    reachable(fig.querySelector(".mm-stage"));
    if (!bar || n < 2) return;

    var stage = fig.querySelector(".mm-stage");
    var range = fig.querySelector(".mm-range");
    var count = fig.querySelector(".mm-count");
    var caption = fig.querySelector(".mm-caption");
    var desc = stage.querySelector("svg > desc");
    var play = fig.querySelector('[data-do="play"]');
    var total = fig.dataset.total;
    var parts = Array.prototype.map.call(stage.querySelectorAll("svg > [data-f]"), function (el) {
      return { el: el, seen: members(el.dataset.f, n), on: !el.hasAttribute("display") };
    });
    var at = -1;
    var timer = null;

    // The caption's place is as high as the highest caption, so that nothing jumps while stepping.
    function reserve() {
      var highest = 0;
      var probe = caption.cloneNode(false);
      probe.removeAttribute("aria-live");
      probe.setAttribute("aria-hidden", "true");
      probe.classList.add("mm-probe");
      caption.parentNode.insertBefore(probe, caption);
      steps.forEach(function (li) {
        probe.innerHTML = li.querySelector(".mm-c").innerHTML;
        highest = Math.max(highest, Math.ceil(probe.getBoundingClientRect().height));
      });
      probe.remove();
      if (highest) caption.style.minHeight = highest + "px";
    }

    function show(i) {
      i = Math.max(0, Math.min(n - 1, i));
      if (i === at) return;
      var near = at >= 0 && Math.abs(i - at) === 1 && !calm.matches;
      parts.forEach(function (part) {
        var on = part.seen[i] === 1;
        part.el.classList.toggle("mm-in", near && on && !part.on);
        if (on === part.on) return;
        part.on = on;
        if (on) part.el.removeAttribute("display");
        else part.el.setAttribute("display", "none");
      });
      at = i;
      caption.innerHTML = steps[i].querySelector(".mm-c").innerHTML;
      if (desc) desc.textContent = description(steps[i]);
      var word = steps[i].value + " / " + total;
      count.textContent = word;
      range.value = String(i + 1);
      range.setAttribute("aria-valuetext", "step " + steps[i].value + " of " + total);
      toggle("first", i === 0);
      toggle("prev", i === 0);
      toggle("next", i === n - 1);
      toggle("last", i === n - 1);
    }

    // aria-disabled rather than disabled: a button that goes dead under the focus would lose it.
    function toggle(name, off) {
      fig.querySelector('[data-do="' + name + '"]').setAttribute("aria-disabled", off ? "true" : "false");
    }

    function stop() {
      if (timer === null) return;
      window.clearInterval(timer);
      timer = null;
      fig.classList.remove("mm-playing");
      play.setAttribute("aria-label", "Play");
      play.title = "Play";
      caption.setAttribute("aria-live", "polite");
    }

    function run() {
      if (at === n - 1) show(0);
      caption.setAttribute("aria-live", "off");
      fig.classList.add("mm-playing");
      play.setAttribute("aria-label", "Pause");
      play.title = "Pause";
      timer = window.setInterval(function () {
        show(at + 1);
        if (at === n - 1) stop();
      }, PERIOD);
    }

    var doing = {
      first: function () { stop(); show(0); },
      prev: function () { stop(); show(at - 1); },
      next: function () { stop(); show(at + 1); },
      last: function () { stop(); show(n - 1); },
      play: function () { if (timer === null) run(); else stop(); }
    };

    bar.addEventListener("click", function (event) {
      var button = event.target.closest("[data-do]");
      if (button) doing[button.dataset.do]();
    });
    range.addEventListener("input", function () { stop(); show(Number(range.value) - 1); });
    fig.addEventListener("keydown", function (event) {
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      if (event.target === range || event.target.closest("details")) return;
      var what = { ArrowLeft: "prev", ArrowUp: "prev", ArrowRight: "next", ArrowDown: "next",
                   Home: "first", End: "last" }[event.key];
      if (event.key === " " && event.target === stage) what = "play";
      if (!what) return;
      event.preventDefault();
      doing[what]();
    });

    bar.hidden = false;
    show(Number(fig.dataset.start || 0));
    reserve();
    var width = fig.clientWidth;
    function resized() {
      if (fig.clientWidth === width) return;
      width = fig.clientWidth;
      caption.style.minHeight = "";
      reserve();
    }
    // An observer goes with its figure, which a live run replaces; a listener of the window would stay.
    if (window.ResizeObserver) new window.ResizeObserver(resized).observe(fig);
    else window.addEventListener("resize", resized);
    fig.mmShow = show;
    fig.mmStep = function () { return at; };
  }

  function startAll(root) {
    Array.prototype.forEach.call((root || document).querySelectorAll(".mm-fig[data-mm]"), start);
    Array.prototype.forEach.call((root || document).querySelectorAll(".mm-chart .mm-stage, .mm-beside, .mm-show pre"), reachable);
  }

  // The theme's print button; a strict policy lets no handler stand in the page itself.
  document.addEventListener("click", function (event) {
    if (event.target.closest && event.target.closest("[data-mm-print]")) window.print();
  });

  // Paper is white: a page in dark colours is printed in light ones.
  var page = document.documentElement;
  var paper = window.matchMedia("print");
  function forPaper() {
    if (paper.matches && page.dataset.theme === "dark") {
      page.dataset.theme = "light";
      page.dataset.mmDark = "1";
    } else if (!paper.matches && page.dataset.mmDark) {
      page.dataset.theme = "dark";
      delete page.dataset.mmDark;
    }
  }
  if (paper.addEventListener) paper.addEventListener("change", forPaper);

  window.mmFigures = { start: startAll };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", function () { startAll(); });
  else startAll();
})();
