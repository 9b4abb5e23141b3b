"use strict";
// Light or dark: what the reader chose here, or else what the system says.
(() => {
  const box = document.querySelector(".theme");
  const root = document.documentElement;
  const kept = () => { try { return localStorage.getItem("fedtlu-theme"); } catch { return null; } };
  const keep = (name) => { try { localStorage.setItem("fedtlu-theme", name); } catch { /* private window */ } };
  const show = (name) => {
    if (name === "auto") delete root.dataset.theme; else root.dataset.theme = name;
    for (const one of box.children) one.setAttribute("aria-pressed", String(one.dataset.name === name));
  };
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "Colours of the page");
  for (const name of ["auto", "light", "dark"]) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = name;
    button.textContent = name[0].toUpperCase() + name.slice(1);
    button.addEventListener("click", () => { show(name); keep(name); });
    box.append(button);
  }
  box.hidden = false;
  show(["light", "dark"].includes(kept()) ? kept() : "auto");
})();

// Tables: a click on a head sorts by its column.
(() => {
  const value = (row, place) => {
    const text = row.cells[place].textContent.trim();
    const number = parseFloat(text.replace(/,/g, "").replace("−", "-"));
    return { text, number, none: text === "-" || text === "" };
  };
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (body.rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      if (head.tagName !== "TH") return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [value(row, place), row]);
        const numbers = rows.every(([one]) => one.none || !Number.isNaN(one.number));
        rows.sort(([a], [b]) => {
          if (a.none || b.none) return a.none - b.none;
          const order = numbers ? a.number - b.number : a.text.localeCompare(b.text, "en", { numeric: true });
          return down ? -order : order;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
  // Only a box that scrolls needs the keyboard.
  const boxes = document.querySelectorAll(".scroll, pre");
  const fit = () => {
    for (const box of boxes) {
      const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
      if (scrolls) box.tabIndex = 0; else box.removeAttribute("tabindex");
    }
  };
  addEventListener("resize", fit);
  document.addEventListener("toggle", fit, true);
  fit();
})();

// Texts to copy.
for (const box of document.querySelectorAll(".copy")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    const code = box.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent.trimEnd());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  box.append(button);
}

// Charts: the pointer or the arrow keys choose a stop, whose values are shown and read out.
for (const [number, plot] of document.querySelectorAll(".plot").entries()) {
  const data = JSON.parse(plot.querySelector("script").textContent);
  const svg = plot.querySelector("svg");
  const figure = plot.closest("figure");
  const reading = figure.querySelector(".reading");
  const off = new Set();
  const make = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, text] of Object.entries(attributes)) made.setAttribute(name, text);
    return made;
  };
  const cursor = make("g", {});
  svg.append(cursor);
  const last = data.stops.length - 1;
  let stop = last;
  let row = 0;
  const across = (series, at) => (series.x || data.x)[at];
  const hint = number ? "" : "Point at a chart, or focus it and use the arrow keys, to read its values.";
  const ring = (x, y) => cursor.append(make("circle", { class: "ring", cx: `${x / 10}%`, cy: `${y / 10}%`, r: 6 }));
  const upright = (x) => cursor.append(make("line", { class: "cursor", x1: `${x / 10}%`, x2: `${x / 10}%`, y1: 0, y2: "100%" }));

  const readings = () => {
    if (data.kind === "map") return [["", `${data.rows[row]}: ${data.words[data.text[stop][row]]}`]];
    if (data.kind === "dots") return [["", data.text[stop]]];
    return data.series.map((one, place) => [one.name, one.text[stop], place])
      .filter(([, text, place]) => text !== "-" && !off.has(place));
  };
  const show = () => {
    cursor.replaceChildren();
    if (data.kind === "map") {
      upright(data.x[stop]);
      ring(data.x[stop], (row + 0.5) * 1000 / data.rows.length);
    } else if (data.kind === "dots") {
      ring(data.x[stop], data.y[stop]);
    } else {
      if (data.x) upright(data.x[stop]);
      data.series.forEach((one, place) => {
        if (one.y[stop] !== null && across(one, stop) !== null && !off.has(place)) ring(across(one, stop), one.y[stop]);
      });
    }
    const told = readings().map(([name, text]) => (name ? `${name}: ${text}` : text));
    const head = document.createElement("b");
    head.textContent = data.stops[stop];
    reading.replaceChildren(head, ...told.flatMap((text) => {
      const span = document.createElement("span");
      span.textContent = text;
      return [span, " "];
    }));
    plot.setAttribute("aria-valuenow", String(stop + 1));
    plot.setAttribute("aria-valuetext", [data.stops[stop], ...told].join("; "));
  };
  const clear = () => {
    if (document.activeElement === plot) return;
    cursor.replaceChildren();
    reading.textContent = hint;
  };
  const nearest = (event) => {
    const box = svg.getBoundingClientRect();
    const x = 1000 * (event.clientX - box.left) / box.width;
    const y = 1000 * (event.clientY - box.top) / box.height;
    let best = Infinity;
    const offer = (distance, at) => { if (distance < best) { best = distance; stop = at; } };
    if (data.kind === "map") {
      row = Math.max(0, Math.min(data.rows.length - 1, Math.floor(y * data.rows.length / 1000)));
    }
    if (data.kind === "dots") data.x.forEach((at, place) => offer(Math.hypot((x - at) * box.width, (y - data.y[place]) * box.height), place));
    else if (data.x) data.x.forEach((at, place) => offer(Math.abs(x - at), place));
    else data.series.forEach((one) => one.x.forEach((at, place) => {
      if (at !== null && one.y[place] !== null) offer(Math.hypot((x - at) * box.width, (y - one.y[place]) * box.height), place);
    }));
    show();
  };
  plot.tabIndex = 0;
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-label", `${plot.dataset.title}: values`);
  plot.setAttribute("aria-valuemin", "1");
  plot.setAttribute("aria-valuemax", String(last + 1));
  plot.addEventListener("pointermove", nearest);
  plot.addEventListener("pointerdown", nearest);
  plot.addEventListener("pointerleave", clear);
  plot.addEventListener("focus", show);
  plot.addEventListener("blur", clear);
  plot.addEventListener("keydown", (event) => {
    const far = Math.max(1, Math.round(last / 10));
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageDown: -far, PageUp: far, Home: -last, End: last };
    if (data.kind === "map" && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      row = Math.max(0, Math.min(data.rows.length - 1, row + (event.key === "ArrowDown" ? 1 : -1)));
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      stop = Math.max(0, Math.min(last, stop + (event.key === "ArrowDown" ? -1 : 1)));
    } else if (event.key in steps) {
      stop = Math.max(0, Math.min(last, stop + steps[event.key]));
    } else return;
    event.preventDefault();
    show();
  });
  figure.querySelectorAll(".legend li").forEach((entry, place, all) => {
    if (all.length < 2) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...entry.childNodes);
    button.setAttribute("aria-pressed", "true");
    button.title = "Show or hide this line";
    button.addEventListener("click", () => {
      const hide = !off.has(place);
      if (hide) off.add(place); else off.delete(place);
      button.setAttribute("aria-pressed", String(!hide));
      svg.querySelectorAll(`[data-series="${place}"]`).forEach((one) => one.classList.toggle("off", hide));
    });
    entry.append(button);
  });
  reading.hidden = false;
  show();
  clear();
}
