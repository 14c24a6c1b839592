"use strict";
// Text from mail is only ever drawn on the canvas or set as textContent, never parsed as HTML.
(() => {
  const LANE = 20, BAR = 14, AXIS = 26, LEAST = 3, GRAB = 3;
  const KINDS = ["proceed", "junk", "rewrite", "reject", "disconnect", "report", "message", "none"];
  const MEANINGS = { message: "message let through", none: "no answer" };
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("data").textContent);
  const scroll = element("scroll"), canvas = element("canvas"), details = element("details");
  const context = canvas.getContext("2d");

  // Requests come as arrays, in the order of Timeline's FIELDS.
  const lanes = data.sessions.map(([id, client, requests]) => {
    const lane = { id, client, changed: false };
    lane.requests = requests.map((fields) => {
      const request = { lane };
      data.fields.forEach((name, index) => { request[name] = fields[index]; });
      request.changed = request.recorded !== null && request.decision !== null &&
        request.recorded !== request.decision;
      lane.changed ||= request.changed;
      return request;
    });
    return lane;
  });

  let shown = lanes, colours = {}, gutter = 240, times = "replay";
  let view = { from: 0, to: 1 }, whole = view, selected = null, drag = null, due = 0;

  // Time

  const begin = (request) => times === "replay" ? request.began : request.asked;
  const end = (request) => times === "replay" ? request.ended : request.answered;
  const answer = (request) => times === "replay" ? request.decision : request.recorded;

  function kind(request) {
    const text = answer(request);
    if (text === null) return "none";
    if (request.phase === "data-line") return "message";
    const word = text.split("|", 1)[0];
    return KINDS.includes(word) ? word : "none";
  }

  function extent(some) {
    let from = Infinity, to = -Infinity;
    for (const lane of some) {
      for (const request of lane.requests) {
        const left = begin(request);
        if (left === null) continue;
        from = Math.min(from, left);
        to = Math.max(to, end(request) ?? left);
      }
    }
    if (from > to) return { from: 0, to: 1 };
    const room = Math.max((to - from) * 0.02, 1e-4);
    return { from: from - room, to: to + room };
  }

  const duration = (seconds) => seconds === null ? "not known"
    : seconds < 1 ? `${(seconds * 1000).toFixed(seconds < 0.01 ? 2 : 1)} ms`
    : `${seconds.toFixed(2)} s`;

  function clock(seconds, step) {
    if (times === "replay") {
      return `${seconds.toFixed(Math.max(0, Math.min(6, Math.ceil(-Math.log10(step)))))} s`;
    }
    const text = new Date(seconds * 1000).toISOString();
    return text.slice(11, step < 1 ? 23 : 19);
  }

  // Places

  const width = () => canvas.clientWidth;
  const x = (time) => gutter + (time - view.from) / (view.to - view.from) * (width() - gutter);
  const time = (left) => view.from + (left - gutter) / (width() - gutter) * (view.to - view.from);
  const y = (index) => AXIS + index * LANE - scroll.scrollTop;

  function box(request) {
    const left = x(begin(request)), right = x(end(request) ?? begin(request));
    return { left, width: Math.max(LEAST, right - left) };
  }

  function at(left, top) {
    const lane = shown[Math.floor((top - AXIS + scroll.scrollTop) / LANE)];
    if (!lane || top < AXIS) return null;
    if (left < gutter) return { lane };
    let best = null, least = GRAB;
    for (const request of lane.requests) {
      if (begin(request) === null) continue;
      const bar = box(request);
      const away = Math.max(bar.left - left, left - bar.left - bar.width, 0);
      if (away <= least) { best = request; least = away; }
    }
    return { lane, request: best };
  }

  // Drawing

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of [...KINDS, "ground", "band", "line", "text", "dim", "mark"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
  }

  function resize() {
    const ratio = window.devicePixelRatio || 1, wide = scroll.clientWidth;
    const high = scroll.clientHeight;
    gutter = Math.min(390, Math.round(wide / 3));
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${high}px`;
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(high * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    redraw();
  }

  function redraw() {
    if (!due) due = requestAnimationFrame(() => { due = 0; draw(); });
  }

  function draw() {
    const wide = width(), high = canvas.clientHeight;
    context.fillStyle = colours.ground;
    context.fillRect(0, 0, wide, high);
    context.font = "12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";
    context.textBaseline = "middle";
    const first = Math.max(0, Math.floor(scroll.scrollTop / LANE));
    const last = Math.min(shown.length, first + Math.ceil(high / LANE) + 1);
    for (let index = first; index < last; index++) {
      if (index % 2) {
        context.fillStyle = colours.band;
        context.fillRect(0, y(index), wide, LANE);
      }
    }
    drawAxis(wide, high);
    clipped(gutter, AXIS, wide, high, () => {
      for (let index = first; index < last; index++) drawLane(shown[index], y(index));
    });
    clipped(0, AXIS, gutter - 8, high, () => {
      for (let index = first; index < last; index++) drawName(shown[index], y(index) + LANE / 2);
    });
    if (!shown.length) {
      context.fillStyle = colours.dim;
      context.fillText("No session matches.", gutter + 16, AXIS + 24);
    }
  }

  function clipped(left, top, right, bottom, paint) {
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    paint();
    context.restore();
  }

  function drawAxis(wide, high) {
    const span = view.to - view.from, wanted = span / Math.max(2, (wide - gutter) / 130);
    const power = 10 ** Math.floor(Math.log10(wanted));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= wanted);
    context.strokeStyle = colours.line;
    context.lineWidth = 1;
    context.fillStyle = colours.dim;
    const count = Math.ceil(span / step) + 1;
    const start = Math.ceil(view.from / step);
    for (let number = 0; number < count; number++) {
      const value = (start + number) * step, left = Math.round(x(value)) + 0.5;
      if (value > view.to || left < gutter) continue;
      line(left, AXIS - 5, left, high);
      context.fillText(clock(value, step), left + 4, AXIS / 2);
    }
    context.fillText("client and session", 26, AXIS / 2);
    line(0, AXIS - 0.5, wide, AXIS - 0.5);
    line(gutter - 0.5, 0, gutter - 0.5, high);
  }

  function line(left, top, right, bottom) {
    context.beginPath();
    context.moveTo(left, top);
    context.lineTo(right, bottom);
    context.stroke();
  }

  function drawName(lane, middle) {
    const left = 26, name = lane.client || lane.id;
    context.fillStyle = colours.text;
    if (lane.changed) context.fillText("\u25b2", 10, middle);
    context.fillText(name, left, middle);
    if (!lane.client) return;
    context.fillStyle = colours.dim;
    context.fillText(lane.id, left + 10 + context.measureText(name).width, middle);
  }

  function drawLane(lane, top) {
    const edge = top + (LANE - BAR) / 2;
    for (const request of lane.requests) {
      if (begin(request) === null) continue;
      const bar = box(request);
      if (bar.left > width() || bar.left + bar.width < gutter) continue;
      context.fillStyle = colours[kind(request)];
      context.fillRect(bar.left, edge, bar.width, BAR);
      if (request.changed || request === selected) {
        context.strokeStyle = colours.mark;
        context.lineWidth = request === selected ? 3 : 1.5;
        context.strokeRect(bar.left - 1, edge - 1, bar.width + 2, BAR + 2);
      }
      drawWords(request, bar, top + LANE / 2);
    }
  }

  function drawWords(request, bar, middle) {
    const left = Math.max(bar.left, gutter), room = bar.left + bar.width - left - 10;
    if (room < 30) return;
    const text = `${request.phase} ${answer(request) ?? ""}`.slice(0, 120);
    if (context.measureText(request.phase).width > room) return;
    clipped(left, middle - LANE, bar.left + bar.width - 3, middle + LANE, () => {
      context.fillStyle = colours.ground;
      context.fillText(text, left + 5, middle);
    });
  }

  // Details

  function rows(request) {
    const taken = (from, to) => from === null || to === null ? null : to - from;
    const list = [
      ["session", request.lane.id],
      ["client", request.lane.client || "not known"],
      ["answer", request.decision ?? "none"],
      ["recorded answer", request.recorded ?? "none"],
      ["took", duration(taken(request.began, request.ended))],
      ["took in the recording", duration(taken(request.asked, request.answered))],
    ];
    if (request.asked !== null) list.push(["asked", new Date(request.asked * 1000).toISOString()]);
    if (request.phase === "data-line") list.splice(2, 0, ["lines", String(request.lines)]);
    return list;
  }

  function show(request, left, top) {
    if (!request) {
      details.hidden = true;
      return;
    }
    const heading = document.createElement("h2"), list = document.createElement("dl");
    heading.textContent = `${request.phase} ${request.parameter}` + (request.changed ? " (changed)" : "");
    for (const [name, value] of rows(request)) {
      const term = document.createElement("dt"), words = document.createElement("dd");
      term.textContent = name;
      words.textContent = value;
      list.append(term, words);
    }
    details.replaceChildren(heading, list);
    details.hidden = false;
    const wide = details.offsetWidth, high = details.offsetHeight;
    const beside = left + 14 + wide < innerWidth ? left + 14 : Math.max(4, left - wide - 14);
    details.style.left = `${beside}px`;
    details.style.top = `${Math.max(4, Math.min(top + 14, innerHeight - high - 4))}px`;
  }

  // Moving about

  function look(from, to) {
    const least = times === "replay" ? 1e-6 : 1e-4, most = (whole.to - whole.from) * 4;
    const span = Math.min(Math.max(to - from, least), most), middle = (from + to) / 2;
    view = { from: middle - span / 2, to: middle + span / 2 };
    redraw();
  }

  function zoom(factor, around) {
    const fixed = around ?? (view.from + view.to) / 2;
    look(fixed + (view.from - fixed) * factor, fixed + (view.to - fixed) * factor);
  }

  function pan(pixels) {
    const by = pixels / (width() - gutter) * (view.to - view.from);
    look(view.from + by, view.to + by);
  }

  function fit(some) {
    const { from, to } = extent(some ?? shown);
    look(from, to);
  }

  function reveal(request) {
    selected = request;
    const index = shown.indexOf(request.lane), top = index * LANE;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    const room = scroll.clientHeight - AXIS - LANE;
    if (top > scroll.scrollTop + room) scroll.scrollTop = top - room;
    const bar = box(request);
    if (bar.left < gutter || bar.left > width()) pan(bar.left - (gutter + width()) / 2);
    const place = canvas.getBoundingClientRect();
    show(request, place.left + Math.max(gutter, x(begin(request))), place.top + y(index) + LANE);
    redraw();
  }

  function step(lanesBy, requestsBy) {
    const lane = selected && shown.includes(selected.lane) ? selected.lane : shown[0];
    if (!lane) return;
    const next = shown[Math.min(shown.length - 1, Math.max(0, shown.indexOf(lane) + lanesBy))];
    const known = next.requests.filter((request) => begin(request) !== null);
    const index = next === lane ? known.indexOf(selected) + requestsBy : 0;
    const request = known[Math.min(known.length - 1, Math.max(0, index))];
    if (request) reveal(request);
  }

  // Searching

  function text(lane) {
    lane.text ??= [lane.id, lane.client, ...lane.requests.flatMap((request) =>
      [request.phase, request.parameter, request.decision, request.recorded])].join("\n").toLowerCase();
    return lane.text;
  }

  function search() {
    const words = element("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = element("changed").checked;
    shown = lanes.filter((lane) => (!only || lane.changed) &&
      words.every((word) => text(lane).includes(word)));
    element("count").textContent = `${shown.length} of ${lanes.length} sessions`;
    element("height").style.height = `${AXIS + shown.length * LANE + 8}px`;
    selected = null;
    show(null);
    redraw();
  }

  function chooseTimes() {
    times = element("times").value;
    selected = null;
    show(null);
    whole = extent(lanes);
    fit();
  }

  // Events

  canvas.addEventListener("pointerdown", (event) => {
    drag = { x: event.clientX, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      drag.moved ||= Math.abs(event.clientX - drag.x) > 3;
      if (drag.moved) {
        pan(drag.x - event.clientX);
        drag.x = event.clientX;
        show(null);
        return;
      }
    }
    const found = at(event.offsetX, event.offsetY);
    canvas.style.cursor = found && event.offsetX < gutter ? "zoom-in" : "crosshair";
    show(found?.request, event.clientX, event.clientY);
  });
  canvas.addEventListener("pointerup", (event) => {
    const found = at(event.offsetX, event.offsetY);
    if (drag && !drag.moved && found) {
      if (event.offsetX < gutter) fit([found.lane]);
      selected = found.request ?? null;
      redraw();
    }
    drag = null;
  });
  canvas.addEventListener("pointerleave", () => show(null));
  scroll.addEventListener("scroll", () => { show(null); redraw(); });
  scroll.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      zoom(Math.exp(event.deltaY * 0.002), time(Math.max(gutter, event.offsetX)));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      pan(event.deltaX || event.deltaY);
    } else {
      return;
    }
    event.preventDefault();
  }, { passive: false });
  const KEYS = {
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": () => fit(),
    ArrowLeft: () => step(0, -1), ArrowRight: () => step(0, 1),
    ArrowUp: () => step(-1, 0), ArrowDown: () => step(1, 0),
    Escape: () => { selected = null; show(null); redraw(); },
  };
  scroll.addEventListener("keydown", (event) => {
    if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    KEYS[event.key]();
    event.preventDefault();
  });
  element("zoom-in").addEventListener("click", () => zoom(0.5));
  element("zoom-out").addEventListener("click", () => zoom(2));
  element("fit").addEventListener("click", () => fit());
  element("search").addEventListener("input", search);
  element("changed").addEventListener("change", search);
  element("times").addEventListener("change", chooseTimes);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
  new ResizeObserver(resize).observe(scroll);

  for (const name of KINDS) {
    const item = document.createElement("li"), square = document.createElement("span");
    square.style.background = `var(--${name})`;
    item.append(square, MEANINGS[name] ?? name);
    element("legend").append(item);
  }
  const changed = document.createElement("li");
  changed.textContent = "\u25b2 and a frame: decided otherwise than recorded";
  element("legend").append(changed);

  readColours();
  resize();
  search();
  chooseTimes();

  // For scripts: where a request is on the screen, and what part of the time is.
  window.timeline = {
    get view() { return { ...view }; },
    get shown() { return shown.map((lane) => lane.id); },
    place(session, number) {
      const index = shown.findIndex((lane) => lane.id === session);
      const bar = box(shown[index].requests[number]), place = canvas.getBoundingClientRect();
      return { x: place.left + bar.left + bar.width / 2, y: place.top + y(index) + LANE / 2 };
    },
  };
})();
