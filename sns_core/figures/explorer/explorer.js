// The script of the page to explore a run. Its input stands in two elements. #description is JSON. #data is one block of
// numbers, zlib-compressed, in base64; the description says where each array lies in the block. Fields are bytes, all
// other arrays are float32.

const ENERGIES = [0.4, 2.5]; // the axis of the charts against time, in units of the solver's mean
const SPECTRUM_ROOM = [0.1, 30]; // the axis of the spectrum spans the solver's range times these factors
const MARGIN = { left: 46, right: 12, top: 8, bottom: 36 };
const PLAY = "M8 5v14l11-7z", PAUSE = "M7 5h4v14H7zM13 5h4v14h-4z";

const find = (id) => document.getElementById(id);
const run = JSON.parse(find("description").textContent);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const between = (value, low, high) => Math.min(high, Math.max(low, value));
const methodStyle = (method) => method.colours; // CSS variables

// The numbers

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

class Numbers {
  /** A float32 array of any shape in the block; `at` takes one index per axis. */
  constructor(block, { offset, shape }) {
    this.shape = shape;
    this.values = new Float32Array(block, offset, shape.reduce((a, b) => a * b, 1));
  }

  at(...index) {
    return this.values[index.reduce((sum, i, axis) => sum * this.shape[axis] + i, 0)];
  }
}

// The choices of the reader

const state = { frame: 0, member: 0, layer: 0, shell: 3, playing: false };
const count = run.steps.length;
const shells = run.wavenumber.length;
const lostAt = (method) => method.lost[state.member];
const isLost = (method) => lostAt(method) >= 0 && run.steps[state.frame] >= lostAt(method);
const shown = () => run.methods.filter((method) => method.shown);

/** Index of the block of steps that holds the current step; the first block for the initial state. */
function blockNow() {
  const index = run.blocks.findIndex((last) => run.steps[state.frame] <= last);
  return index < 0 ? run.blocks.length - 1 : index;
}

const time = (step) => step * run.time_step;
const decimals = Math.max(0, ...run.steps.slice(0, 3).map((s) => (String(+time(s).toFixed(3)).split(".")[1] ?? "").length));
const units = run.time_units === "1" ? "" : ` ${run.time_units}`;

// Fields

class Fields {
  constructor(block) {
    this.block = block;
    this.image = new ImageData(run.width, run.rows);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.scale = Uint32Array.from({ length: 256 }, (_, i) => {
      const [red, green, blue] = run.colours.slice(3 * i, 3 * i + 3);
      return (255 << 24) | (blue << 16) | (green << 8) | red;
    });
    this.colours = Uint32Array.from({ length: run.levels }, (_, level) => this.scale[Math.round((255 * level) / (run.levels - 1))]);
  }

  /** Paint the current frame of a method, one pixel per grid point; return false if the method has no frame here. A single
   *  row of points is painted above the frames before it. */
  paint(method, context) {
    const { offset, shape } = method.frames[state.member];
    if (state.frame >= shape[0]) return false;
    const { width, height, rows } = run;
    this.pixels.fill(0);
    for (let above = 0; above < rows; above++) {
      const frame = state.frame - (height > 1 ? 0 : above), y = height > 1 ? height - 1 - above : 0; // y points upwards
      if (frame < 0) break;
      const place = offset + ((frame * run.layers.length + state.layer) * height + y) * width;
      const line = new Uint8Array(this.block, place, width);
      for (let x = 0; x < width; x++) this.pixels[above * width + x] = this.colours[line[x]];
    }
    context.putImageData(this.image, 0, 0);
    return true;
  }
}

function panelOf(method) {
  const { width, rows } = run;
  const canvas = make("canvas", { width, height: rows, role: "img", "aria-label": `${run.variable}, ${method.label}` });
  const words = make("p", { hidden: "" });
  const panel = make("figure", { class: "panel method", style: methodStyle(method), "data-method": method.name },
    make("figcaption", { title: method.label }, method.label), make("div", { style: `aspect-ratio: ${width} / ${rows}` }, canvas, words));
  find("panels").append(panel);
  return { method, panel, canvas, words, context: canvas.getContext("2d") };
}

function paintPanels(panels, fields) {
  const columns = Math.max(1, shown().length);
  find("panels").style.setProperty("--columns", columns > 6 ? Math.ceil(columns / 2) : columns);
  for (const { method, panel, canvas, words, context } of panels) {
    panel.hidden = !method.shown;
    if (!method.shown) continue;
    const painted = fields.paint(method, context);
    canvas.style.visibility = painted ? "visible" : "hidden";
    words.hidden = painted;
    words.textContent = isLost(method) ? `lost at step ${lostAt(method)}` : `run for ${method.last_step} steps`;
  }
}

// Charts

class Chart {
  /** Axes of an SVG; `x` and `y` are {low, high, log, ticks, label, format}. */
  constructor(svg, x, y) {
    Object.assign(this, { svg, x, y });
    this.lines = draw("g", { "clip-path": `url(#clip-${svg.id})` });
    this.above = draw("g", {});
  }

  fit() {
    const { width, height } = this.svg.getBoundingClientRect();
    this.box = { left: MARGIN.left, right: width - MARGIN.right, top: MARGIN.top, bottom: height - MARGIN.bottom };
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const { left, right, top, bottom } = this.box;
    const frame = draw("g", {});
    for (const tick of this.x.ticks) {
      const x = this.toX(tick);
      frame.append(draw("line", { class: "grid", x1: x, x2: x, y1: top, y2: bottom }),
        draw("text", { x, y: bottom + 16, "text-anchor": "middle" }, this.x.format(tick)));
    }
    for (const tick of this.y.ticks) {
      const y = this.toY(tick);
      frame.append(draw("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }),
        draw("text", { x: left - 7, y: y + 4, "text-anchor": "end" }, this.y.format(tick)));
    }
    frame.append(draw("text", { x: (left + right) / 2, y: bottom + 32, "text-anchor": "middle" }, this.x.label));
    const clip = draw("clipPath", { id: `clip-${this.svg.id}` },
      draw("rect", { x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) }));
    this.svg.replaceChildren(clip, frame, this.lines, this.above);
  }

  toX(value) {
    return this.box.left + (this.box.right - this.box.left) * share(value, this.x);
  }

  toY(value) {
    return this.box.bottom - (this.box.bottom - this.box.top) * share(value, this.y);
  }

  /** Return the value of x under a pointer. */
  under(event) {
    const { left } = this.svg.getBoundingClientRect();
    const part = (event.clientX - left - this.box.left) / (this.box.right - this.box.left);
    const { low, high, log } = this.x;
    return log ? low * (high / low) ** part : low + (high - low) * part;
  }

  /** Return an SVG path through points, broken at values that are not finite. */
  path(xs, ys) {
    let text = "", pen = "M";
    for (let i = 0; i < xs.length; i++) {
      if (Number.isFinite(ys[i]) && ys[i] > 0) {
        // A value far beyond the axis is drawn a little beyond it. The line keeps its direction up to the edge.
        text += `${pen}${this.toX(xs[i]).toFixed(1)},${between(this.toY(ys[i]), -2000, 4000).toFixed(1)}`;
        pen = "L";
      } else pen = "M";
    }
    return text;
  }

  line(method, xs, ys) {
    const path = draw("path", { class: `line method${method.dashed ? " dashed" : ""}`, style: methodStyle(method), d: this.path(xs, ys) });
    path.dataset.method = method.name;
    return path;
  }

  range(xs, low, high) {
    const back = [...xs].reverse(), top = [...high].reverse();
    return draw("path", { class: "range", d: `${this.path(xs, low)}${this.path(back, top).replace("M", "L")}Z` });
  }
}

function share(value, { low, high, log }) {
  return log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
}

const power = (value) => `10${[...String(Math.round(Math.log10(value)))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("")}`;

/** Return a number in four digits: 0.1234, 1.234 × 10⁻⁵. */
function digits(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4)) return value.toPrecision(4);
  const exponent = Math.floor(Math.log10(Math.abs(value)));
  return `${(value / 10 ** exponent).toFixed(3)} × ${power(10 ** exponent)}`;
}

function roundTicks(high, wanted) {
  const rough = high / wanted, size = 10 ** Math.floor(Math.log10(rough));
  const step = size * [1, 2, 5, 10].find((factor) => factor * size >= rough);
  return Array.from({ length: Math.floor(high / step + 1e-9) + 1 }, (_, i) => i * step);
}

// The spectrum

class Spectrum {
  constructor(numbers) {
    this.numbers = numbers;
    this.svg = find("spectrum");
    this.rows = run.methods.map((method) => {
      const cells = [make("td"), make("td")];
      const row = make("tr", { class: "method", style: methodStyle(method), "data-method": method.name }, make("th", { scope: "row" }, method.label), ...cells);
      return { method, row, cells };
    });
    this.ensembleCells = [make("td"), make("td", {}, "1")];
    const body = find("reading").tBodies[0];
    body.append(make("tr", { "data-method": "ensemble" }, make("th", { scope: "row" }, "Solver ensemble"), ...this.ensembleCells), ...this.rows.map(({ row }) => row));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.svg.addEventListener("keydown", (event) => {
      const change = { ArrowLeft: -1, ArrowRight: 1, Home: -shells, End: shells }[event.key];
      if (!change) return;
      event.preventDefault();
      event.stopPropagation();
      this.read(state.shell + change);
    });
  }

  ensemble(kind) {
    return run.ensemble.energy_spectrum[kind][state.layer];
  }

  values(method) {
    const place = [run.methods.indexOf(method), state.member, blockNow(), state.layer];
    return run.wavenumber.map((_, shell) => this.numbers.at(...place, shell));
  }

  /** Set the axes for the current layer. */
  fit() {
    const k = run.wavenumber, mean = this.ensemble("mean");
    const low = Math.min(...mean) * SPECTRUM_ROOM[0], high = Math.max(...mean) * SPECTRUM_ROOM[1];
    const decades = [];
    for (let e = Math.ceil(Math.log10(low)); e <= Math.log10(high); e++) decades.push(10 ** e);
    const ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256].map((factor) => factor * k[0]).filter((tick) => tick <= k.at(-1));
    const unit = run.wavenumber_units.includes("(1)") || run.wavenumber_units === "1" ? "" : ` (${run.wavenumber_units})`;
    this.chart = new Chart(this.svg,
      { low: k[0] * 0.92, high: k.at(-1) * 1.06, log: true, ticks, label: `wavenumber k${unit}`, format: (tick) => String(+tick.toPrecision(2)) },
      { low, high, log: true, ticks: decades, format: power });
    this.chart.fit();
  }

  update() {
    const chart = this.chart, k = run.wavenumber, block = run.blocks[blockNow()];
    const length = run.blocks[0];
    find("spectrum-block").textContent = `mean over steps ${block - length + 1} to ${block}; dotted: solver ensemble`;
    const lines = [chart.range(k, this.ensemble("min"), this.ensemble("max")), draw("path", { class: "mean", d: chart.path(k, this.ensemble("mean")) })];
    for (const method of shown()) lines.push(chart.line(method, k, this.values(method)));
    chart.lines.replaceChildren(...lines);
    this.read(state.shell);
  }

  point(event) {
    const k = this.chart.under(event);
    const distance = run.wavenumber.map((wavenumber) => Math.abs(Math.log(wavenumber / k)));
    this.read(distance.indexOf(Math.min(...distance)));
  }

  /** Show the values at a shell. */
  read(shell) {
    state.shell = between(shell, 0, shells - 1);
    const chart = this.chart, k = run.wavenumber[state.shell], x = chart.toX(k), mean = this.ensemble("mean")[state.shell];
    find("reading-shell").textContent = `k = ${+k.toPrecision(4)}`;
    this.ensembleCells[0].textContent = digits(mean);
    const marks = [draw("line", { class: "cursor", x1: x, x2: x, y1: chart.box.top, y2: chart.box.bottom })];
    const spoken = [];
    for (const { method, row, cells } of this.rows) {
      row.hidden = !method.shown;
      const value = this.values(method)[state.shell];
      cells[0].textContent = digits(value);
      cells[0].dataset.value = value;
      cells[1].textContent = Number.isFinite(value) ? (value / mean).toPrecision(3) : "–";
      if (!method.shown) continue;
      spoken.push(`${method.label} ${digits(value)}`);
      const y = chart.toY(value);
      if (y >= chart.box.top && y <= chart.box.bottom) marks.push(draw("circle", { class: "dot method", style: methodStyle(method), cx: x, cy: y, r: 4.5 }));
    }
    chart.above.replaceChildren(...marks);
    const range = { "aria-valuemin": 0, "aria-valuemax": shells - 1, "aria-valuenow": state.shell, "aria-valuetext": `k = ${+k.toPrecision(4)}: ${spoken.join(", ")}` };
    for (const [name, value] of Object.entries(range)) this.svg.setAttribute(name, value);
  }
}

// Energy and enstrophy against time

class Course {
  constructor(name, numbers, go) {
    Object.assign(this, { name, numbers, svg: find(name) });
    const label = `time (${run.time_units === "1" ? "time units" : run.time_units})`, high = time(run.steps.at(-1)) || 1;
    this.x = { low: 0, high, ticks: roundTicks(high, 7), label, format: (tick) => String(+tick.toPrecision(6)) };
    this.y = { low: ENERGIES[0], high: ENERGIES[1], log: true, ticks: [0.5, 1, 2], format: String };
    const follow = (event) => {
      const wanted = this.chart.under(event) / run.time_step;
      const distance = run.steps.map((step) => Math.abs(step - wanted));
      go(distance.indexOf(Math.min(...distance)));
    };
    this.svg.addEventListener("pointerdown", (event) => {
      this.svg.setPointerCapture(event.pointerId);
      follow(event);
    });
    this.svg.addEventListener("pointermove", (event) => event.buttons && follow(event));
  }

  fit() {
    this.chart = new Chart(this.svg, this.x, this.y);
    this.chart.fit();
    const { chart } = this, ensemble = run.ensemble[this.name], mean = ensemble.mean[state.layer];
    const ends = [this.x.low, this.x.high], level = (value) => [value / mean, value / mean];
    const lines = [chart.range(ends, level(ensemble.min[state.layer]), level(ensemble.max[state.layer])), draw("path", { class: "mean", d: chart.path(ends, [1, 1]) })];
    const marks = [];
    for (const method of shown()) {
      const place = [run.methods.indexOf(method), state.member];
      const values = run.steps.map((_, step) => this.numbers.at(...place, step, state.layer) / mean);
      lines.push(chart.line(method, run.steps.map(time), values));
      if (lostAt(method) >= 0) {
        const x = chart.toX(time(lostAt(method))), y = chart.box.top;
        marks.push(draw("path", { class: "lost method", style: methodStyle(method), d: `M${x},${y - 6}l6,10h-12z` },
          draw("title", {}, `${method.label}: lost at step ${lostAt(method)}`)));
      }
    }
    chart.lines.replaceChildren(...lines);
    this.cursor = draw("line", { class: "cursor", y1: chart.box.top, y2: chart.box.bottom });
    chart.above.replaceChildren(...marks, this.cursor);
  }

  update() {
    const x = this.chart.toX(time(run.steps[state.frame]));
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
  }
}

// The controls

function choice(kind, name, label, checked, changed) {
  const input = make("input", { type: kind, name });
  input.checked = checked;
  input.addEventListener("change", () => changed(input.checked));
  return [make("label", {}, input, make("span", {}, label)), input];
}

/** Make a row of radio buttons; return a function that chooses one of them by its index. */
function radioRow(id, labels, changed) {
  const made = labels.map((label, index) => choice("radio", id, label, index === 0, () => changed(index)));
  find(id).append(...made.map(([label]) => label));
  return (index) => {
    made[index][1].checked = true;
    changed(index);
  };
}

/** Return the frame that the page opens with: the end of the last block before the first loss among the methods shown,
    or the middle of the run if none of them is lost. */
function openingFrame() {
  const lost = shown().map(lostAt).filter((step) => step > 0);
  const before = run.blocks.filter((block) => block < Math.min(...lost));
  const wanted = lost.length ? before.at(-1) ?? Math.min(...lost) - 1 : run.steps[count - 1] / 2;
  return Math.max(0, run.steps.findLastIndex((step) => step <= wanted));
}

function start(block) {
  const numbers = Object.fromEntries(Object.entries(run.arrays).map(([name, place]) => [name, new Numbers(block, place)]));
  const fields = new Fields(block), panels = run.methods.map(panelOf), slider = find("time");
  const spectrum = new Spectrum(numbers.spectrum);
  const courses = ["kinetic_energy", "enstrophy"].map((name) => new Course(name, numbers[name], go));

  /** Draw the parts that depend on the step. */
  function update() {
    paintPanels(panels, fields);
    spectrum.update();
    for (const course of courses) course.update();
    const step = run.steps[state.frame];
    find("clock").replaceChildren(`t = ${time(step).toFixed(decimals)}${units}`, make("small", {}, `step ${step}`));
    slider.value = state.frame;
    slider.setAttribute("aria-valuetext", `t = ${time(step).toFixed(decimals)}${units}, step ${step}`);
  }

  /** Draw everything. */
  function refit() {
    spectrum.fit();
    for (const course of courses) course.fit();
    update();
  }

  function go(frame) {
    state.frame = between(frame, 0, count - 1);
    update();
  }

  function play(on) {
    state.playing = on;
    const button = find("play");
    button.setAttribute("aria-pressed", on);
    button.setAttribute("aria-label", on ? "Pause" : "Play");
    button.querySelector("path").setAttribute("d", on ? PAUSE : PLAY);
    if (!on) return;
    if (state.frame === count - 1) go(0);
    let last = performance.now();
    const tick = (now) => {
      if (!state.playing) return;
      const frames = Math.floor(((now - last) / 1000) * find("speed").value);
      if (frames > 0) {
        last = now;
        go(state.frame + Math.min(frames, 3)); // at most three, so that a page does not jump ahead after a rest in the background
        if (state.frame === count - 1) return play(false);
      }
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  const toggles = run.methods.map((method) => {
    const [label, input] = choice("checkbox", "method", method.label, method.shown, (on) => {
      method.shown = on;
      refit();
    });
    label.classList.add("method");
    label.setAttribute("style", methodStyle(method));
    find("methods").append(label);
    return input;
  });
  const chooseMember = radioRow("members", run.members.map(String), (index) => {
    state.member = index;
    refit();
  });
  const chooseLayer = radioRow("layers", run.layers, (index) => {
    state.layer = index;
    refit();
  });
  find("layer-choice").hidden = run.layers.length === 1;

  slider.max = count - 1;
  slider.addEventListener("input", () => go(Number(slider.value)));
  find("play").addEventListener("click", () => play(!state.playing));
  const keys = {
    " ": () => play(!state.playing),
    ArrowRight: (event) => go(state.frame + (event.shiftKey ? 10 : 1)),
    ArrowLeft: (event) => go(state.frame - (event.shiftKey ? 10 : 1)),
    Home: () => go(0),
    End: () => go(count - 1),
    m: () => chooseMember((state.member + 1) % run.members.length),
    l: () => chooseLayer((state.layer + 1) % run.layers.length),
  };
  document.addEventListener("keydown", (event) => {
    // Buttons, lists and switches keep their own keys.
    const control = event.target.closest("button, select, summary, input:not(#time)");
    if (event.ctrlKey || event.metaKey || event.altKey || (control && !/^[0-9ml]$/.test(event.key))) return;
    const action = keys[event.key] ?? (/^[1-9]$/.test(event.key) ? () => toggles[event.key - 1]?.click() : null);
    if (!action) return;
    event.preventDefault();
    action(event);
  });

  const scale = find("scale").getContext("2d"), strip = new ImageData(256, 1);
  new Uint32Array(strip.data.buffer).set(fields.scale);
  scale.putImageData(strip, 0, 0);
  find("scale-words").append(...[`−${run.limit} σ`, run.variable, `+${run.limit} σ`].map((word) => make("span", {}, word)));

  find("main").hidden = find("player").hidden = false;
  state.frame = openingFrame();
  play(false);
  refit();
  new ResizeObserver(refit).observe(find("charts"));
}

try {
  start(await inflated(find("data").textContent.trim()));
} catch (error) {
  find("trouble").hidden = false;
  find("trouble").textContent = `The page could not be drawn (${error.message}). It needs a browser of 2023 or later.`;
  throw error;
}
