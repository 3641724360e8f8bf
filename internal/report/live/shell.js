"use strict";
// Keeps the report up with its run. The next one loads out of sight and takes the
// place of the one before with the same scroll position and the same open details.
(function () {
  const state = document.getElementById("state");
  const follow = document.getElementById("follow");
  let frame = document.querySelector("iframe");
  let shown = frame.dataset.version;
  let latest = shown;
  let loading = false;

  function carry(from, to) {
    const before = from.contentDocument.querySelectorAll("details");
    const after = to.contentDocument.querySelectorAll("details");
    if (before.length === after.length) {
      after.forEach(function (d, i) { d.open = before[i].open; });
    }
    to.contentWindow.scrollTo(from.contentWindow.scrollX, from.contentWindow.scrollY);
  }

  function show() {
    if (loading || !follow.checked || latest === shown) {
      return;
    }
    loading = true;
    const version = latest;
    const next = document.createElement("iframe");
    next.title = "report";
    next.className = "next";
    next.src = "report";
    next.addEventListener("load", function () {
      next.className = "";
      carry(frame, next);
      frame.remove();
      frame = next;
      shown = version;
      loading = false;
      show();
    }, { once: true });
    frame.before(next);
  }

  follow.addEventListener("change", show);
  const events = new EventSource("events");
  events.onmessage = function (e) {
    const now = JSON.parse(e.data);
    state.textContent = now.text;
    latest = now.version;
    if (now.ended) {
      document.title = "xferbench: " + now.text;
    }
    show();
  };
  events.onerror = function () {
    state.textContent = "xferbench no longer answers: this is what it showed last";
  };
})();
