"use strict";
// What the page gains by a script; it says the same without.
document.documentElement.classList.add("scripted");
addEventListener("DOMContentLoaded", () => {
  const scales = { ns: 1, "µs": 1e3, ms: 1e6, s: 1e9, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1048576, GiB: 1073741824 };
  // number is what a cell sorts by: "64KiB", "12.3 ms", "<0.001", "10x4", "52%"; NaN of what is none.
  const number = (text) => {
    const m = /^[<>±+]?(-?[\d.]+(?:e[-+]?\d+)?)(?: (ns|µs|ms|s)| ?([kMG]?B|[KMG]iB)|[%a-z]?)(?:[x/+].*)?$/.exec(text.replace(/(\d),(?=\d{3})/g, "$1"));
    return m ? Number(m[1]) * (scales[m[2] || m[3]] || 1) : NaN;
  };
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (!isNaN(x) && !isNaN(y)) return x - y;
    return a < b ? -1 : a > b ? 1 : 0;
  };

  // A button in each head sorts by its column: up, down, and as it was.
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
    if (rows.length < 2) continue;
    heads.forEach((head, column) => {
      if (!head.textContent) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      button.title = "sort by " + head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "" }[head.getAttribute("aria-sort")] ?? "ascending";
        for (const h of heads) h.removeAttribute("aria-sort");
        if (next) head.setAttribute("aria-sort", next);
        const text = (row) => (row.cells[column] || { textContent: "-" }).textContent.trim();
        const sorted = [...rows];
        if (next) sorted.sort((p, q) => {
          const a = text(p), b = text(q), none = (s) => s === "-" || s === "";
          if (none(a) || none(b)) return none(a) - none(b); // what has no value stays last
          return (next === "ascending" ? 1 : -1) * compare(a, b);
        });
        body.replaceChildren(...sorted);
      });
    });
  }

  // A series of a figure is shown and hidden by its entry in the legend.
  for (const figure of document.querySelectorAll("figure")) {
    const groups = figure.querySelectorAll(":scope > .drawn > svg > g[data-series]");
    const entries = figure.querySelectorAll(":scope > .drawn > .legend > li");
    if (groups.length < 2 || groups.length !== entries.length) continue;
    entries.forEach((entry, n) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "true");
      button.append(...entry.childNodes);
      entry.append(button);
      button.addEventListener("click", () => {
        const off = groups[n].classList.toggle("off");
        button.setAttribute("aria-pressed", String(!off));
      });
    });
  }

  // The hint above a table stands only where columns are out of sight.
  const hints = () => {
    for (const hint of document.querySelectorAll(".hint")) {
      const scroll = hint.nextElementSibling;
      hint.classList.toggle("needed", scroll.scrollWidth > scroll.clientWidth + 1);
    }
  };
  hints();
  addEventListener("resize", hints);
  addEventListener("toggle", hints, true);

  // On paper everything is open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const d of opened) d.open = true;
  });
  addEventListener("afterprint", () => { for (const d of opened) d.open = false; });
});
