// The page to explore a run. It is told everything by two elements: #told, a description in JSON, and #data, one block of
// numbers: zlib-compressed, in base64. Arrays lie where the description says; fields are bytes, everything else float32.

const FINE = 256; // pixels a side of a field's canvas
const ENERGIES = [0.4, 2.5]; // axis of the charts against time, in units of the solver's mean
const SPECTRUM_ROOM = [0.1, 30]; // of the axis of the spectrum, below and above the solver's
const MARGIN = { left: 46, right: 12, top: 8, bottom: 36 };
const PLAY = "M8 5v14l11-7z", PAUSE = "M7 5h4v14H7zM13 5h4v14h-4z";

const find = (id) => document.getElementById(id);
const told = JSON.parse(find("told").textContent);

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
const methodStyle = (method) => `--method: ${method.colour}`;

// The numbers

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

class Numbers {
  /** A float32 array of any shape in the block, read by one index an axis. */
  constructor(block, { offset, shape }) {
    this.shape = shape;
    this.values = new Float32Array(block, offset, shape.reduce((a, b) => a * b, 1));
  }

  at(...index) {
    return this.values[index.reduce((sum, i, axis) => sum * this.shape[axis] + i, 0)];
  }
}

/** Matrix FINE x n of the trigonometric polynomial through n points of a periodic line. */
function interpolation(n) {
  const matrix = new Float32Array(FINE * n);
  for (let i = 0; i < FINE; i++) {
    for (let j = 0; j < n; j++) {
      const angle = 2 * Math.PI * (i / FINE - j / n);
      let sum = n % 2 ? 1 : 1 + Math.cos((n / 2) * angle);
      for (let k = 1; k < n / 2; k++) sum += 2 * Math.cos(k * angle);
      matrix[i * n + j] = sum / n;
    }
  }
  return matrix;
}

// What is chosen

const state = { frame: 0, member: 0, layer: 0, shell: 3, playing: false };
const count = told.steps.length;
const shells = told.wavenumber.length;
const lostAt = (method) => method.lost[state.member];
const isLost = (method) => lostAt(method) >= 0 && told.steps[state.frame] >= lostAt(method);
const shown = () => told.methods.filter((method) => method.shown);

/** The block of steps that holds the current one; the first one for the initial state. */
function blockNow() {
  const index = told.blocks.findIndex((last) => told.steps[state.frame] <= last);
  return index < 0 ? told.blocks.length - 1 : index;
}

const time = (step) => step * told.time_step;
const decimals = Math.max(0, ...told.steps.slice(0, 3).map((s) => (String(+time(s).toFixed(3)).split(".")[1] ?? "").length));
const units = told.time_units === "1" ? "" : ` ${told.time_units}`;

// Fields

class Fields {
  constructor(block) {
    this.block = block;
    this.matrix = interpolation(told.points);
    this.half = new Float32Array(FINE * told.points);
    this.image = new ImageData(FINE, FINE);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.colours = Uint32Array.from({ length: 256 }, (_, i) => {
      const [red, green, blue] = told.colours.slice(3 * i, 3 * i + 3);
      return (255 << 24) | (blue << 16) | (green << 8) | red;
    });
  }

  /** Paint a method's frame; false where it has none. */
  paint(method, context) {
    const { offset, shape } = method.frames[state.member];
    if (state.frame >= shape[0]) return false;
    const n = told.points;
    const start = offset + (state.frame * told.layers.length + state.layer) * n * n;
    const field = new Uint8Array(this.block, start, n * n);
    for (let i = 0; i < FINE; i++) {
      for (let x = 0; x < n; x++) {
        let sum = 0;
        for (let y = 0; y < n; y++) sum += this.matrix[i * n + y] * field[y * n + x];
        this.half[i * n + x] = sum;
      }
    }
    // From steps of the values to places on the colour scale, which is shorter.
    const stretch = told.range / told.limit, scale = (255 * stretch) / (told.levels - 1), begin = (255 * (1 - stretch)) / 2;
    for (let i = 0; i < FINE; i++) {
      const row = (FINE - 1 - i) * FINE; // y points upwards
      for (let j = 0; j < FINE; j++) {
        let sum = 0;
        for (let x = 0; x < n; x++) sum += this.matrix[j * n + x] * this.half[i * n + x];
        this.pixels[row + j] = this.colours[between(Math.round(begin + scale * sum), 0, 255)];
      }
    }
    context.putImageData(this.image, 0, 0);
    return true;
  }
}

function panelOf(method) {
  const canvas = make("canvas", { width: FINE, height: FINE, role: "img", "aria-label": `${told.variable}, ${method.label}` });
  const words = make("p", { hidden: "" });
  const panel = make("figure", { class: "panel method", style: methodStyle(method), "data-method": method.name },
    make("figcaption", { title: method.label }, method.label), make("div", {}, canvas, words));
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
    words.textContent = isLost(method) ? `lost at step ${lostAt(method)}` : `run for ${method.reached} steps`;
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

  /** The value of x under a pointer. */
  under(event) {
    const { left } = this.svg.getBoundingClientRect();
    const part = (event.clientX - left - this.box.left) / (this.box.right - this.box.left);
    const { low, high, log } = this.x;
    return log ? low * (high / low) ** part : low + (high - low) * part;
  }

  /** Path through points, broken where a value is not finite. */
  path(xs, ys) {
    let text = "", pen = "M";
    for (let i = 0; i < xs.length; i++) {
      if (Number.isFinite(ys[i]) && ys[i] > 0) {
        // A value far beyond the axis is drawn just beyond it, so that the line keeps its direction to the edge.
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

/** A number in four digits, as 0.1234 or 1.234 × 10⁻⁵. */
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
    this.rows = told.methods.map((method) => {
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
    return told.ensemble.energy_spectrum[kind][state.layer];
  }

  values(method) {
    const place = [told.methods.indexOf(method), state.member, blockNow(), state.layer];
    return told.wavenumber.map((_, shell) => this.numbers.at(...place, shell));
  }

  /** Axes for the layer shown. */
  fit() {
    const k = told.wavenumber, mean = this.ensemble("mean");
    const low = Math.min(...mean) * SPECTRUM_ROOM[0], high = Math.max(...mean) * SPECTRUM_ROOM[1];
    const decades = [];
    for (let e = Math.ceil(Math.log10(low)); e <= Math.log10(high); e++) decades.push(10 ** e);
    const ticks = [1, 2, 4, 8, 16, 32, 64, 128, 256].map((factor) => factor * k[0]).filter((tick) => tick <= k.at(-1));
    const unit = told.wavenumber_units.includes("(1)") || told.wavenumber_units === "1" ? "" : ` (${told.wavenumber_units})`;
    this.chart = new Chart(this.svg,
      { low: k[0] * 0.92, high: k.at(-1) * 1.06, log: true, ticks, label: `wavenumber k${unit}`, format: (tick) => String(+tick.toPrecision(2)) },
      { low, high, log: true, ticks: decades, format: power });
    this.chart.fit();
  }

  update() {
    const chart = this.chart, k = told.wavenumber, block = told.blocks[blockNow()];
    const length = told.blocks[0];
    find("spectrum-block").textContent = `mean over steps ${block - length + 1} to ${block}; dotted: solver ensemble`;
    const lines = [chart.range(k, this.ensemble("min"), this.ensemble("max")), draw("path", { class: "mean", d: chart.path(k, this.ensemble("mean")) })];
    for (const method of shown()) lines.push(chart.line(method, k, this.values(method)));
    chart.lines.replaceChildren(...lines);
    this.read(state.shell);
  }

  point(event) {
    const k = this.chart.under(event);
    const distance = told.wavenumber.map((own) => Math.abs(Math.log(own / k)));
    this.read(distance.indexOf(Math.min(...distance)));
  }

  /** Show the values of a shell. */
  read(shell) {
    state.shell = between(shell, 0, shells - 1);
    const chart = this.chart, k = told.wavenumber[state.shell], x = chart.toX(k), mean = this.ensemble("mean")[state.shell];
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
    const label = `time (${told.time_units === "1" ? "time units" : told.time_units})`, high = time(told.steps.at(-1)) || 1;
    this.x = { low: 0, high, ticks: roundTicks(high, 7), label, format: (tick) => String(+tick.toPrecision(6)) };
    this.y = { low: ENERGIES[0], high: ENERGIES[1], log: true, ticks: [0.5, 1, 2], format: String };
    const follow = (event) => {
      const wanted = this.chart.under(event) / told.time_step;
      const distance = told.steps.map((step) => Math.abs(step - wanted));
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
    const { chart } = this, known = told.ensemble[this.name], mean = known.mean[state.layer];
    const ends = [this.x.low, this.x.high], level = (value) => [value / mean, value / mean];
    const lines = [chart.range(ends, level(known.min[state.layer]), level(known.max[state.layer])), draw("path", { class: "mean", d: chart.path(ends, [1, 1]) })];
    const marks = [];
    for (const method of shown()) {
      const place = [told.methods.indexOf(method), state.member];
      const values = told.steps.map((_, step) => this.numbers.at(...place, step, state.layer) / mean);
      lines.push(chart.line(method, told.steps.map(time), values));
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
    const x = this.chart.toX(time(told.steps[state.frame]));
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

/** A row of which one is chosen; `choose` may be called from elsewhere, too. */
function oneOf(id, labels, changed) {
  const made = labels.map((label, index) => choice("radio", id, label, index === 0, () => changed(index)));
  find(id).append(...made.map(([label]) => label));
  return (index) => {
    made[index][1].checked = true;
    changed(index);
  };
}

/** Where the page opens: at the end of the last block before the first method shown is lost, or in the middle. */
function opening() {
  const lost = shown().map(lostAt).filter((step) => step > 0);
  const before = told.blocks.filter((block) => block < Math.min(...lost));
  const wanted = lost.length ? before.at(-1) ?? Math.min(...lost) - 1 : told.steps[count - 1] / 2;
  return Math.max(0, told.steps.findLastIndex((step) => step <= wanted));
}

function start(block) {
  const numbers = Object.fromEntries(Object.entries(told.arrays).map(([name, place]) => [name, new Numbers(block, place)]));
  const fields = new Fields(block), panels = told.methods.map(panelOf), slider = find("time");
  const spectrum = new Spectrum(numbers.spectrum);
  const courses = ["kinetic_energy", "enstrophy"].map((name) => new Course(name, numbers[name], go));

  /** Draw what depends on the step. */
  function update() {
    paintPanels(panels, fields);
    spectrum.update();
    for (const course of courses) course.update();
    const step = told.steps[state.frame];
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
        go(state.frame + Math.min(frames, 3)); // a page in the background does not jump ahead
        if (state.frame === count - 1) return play(false);
      }
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  }

  const toggles = told.methods.map((method) => {
    const [label, input] = choice("checkbox", "method", method.label, method.shown, (on) => {
      method.shown = on;
      refit();
    });
    label.classList.add("method");
    label.setAttribute("style", methodStyle(method));
    find("methods").append(label);
    return input;
  });
  const chooseMember = oneOf("members", told.members.map(String), (index) => {
    state.member = index;
    refit();
  });
  const chooseLayer = oneOf("layers", told.layers, (index) => {
    state.layer = index;
    refit();
  });
  find("layer-choice").hidden = told.layers.length === 1;

  slider.max = count - 1;
  slider.addEventListener("input", () => go(Number(slider.value)));
  find("play").addEventListener("click", () => play(!state.playing));
  const keys = {
    " ": () => play(!state.playing),
    ArrowRight: (event) => go(state.frame + (event.shiftKey ? 10 : 1)),
    ArrowLeft: (event) => go(state.frame - (event.shiftKey ? 10 : 1)),
    Home: () => go(0),
    End: () => go(count - 1),
    m: () => chooseMember((state.member + 1) % told.members.length),
    l: () => chooseLayer((state.layer + 1) % told.layers.length),
  };
  document.addEventListener("keydown", (event) => {
    // Buttons, lists and switches keep their own keys.
    const own = event.target.closest("button, select, summary, input:not(#time)");
    if (event.ctrlKey || event.metaKey || event.altKey || (own && !/^[0-9ml]$/.test(event.key))) return;
    const action = keys[event.key] ?? (/^[1-9]$/.test(event.key) ? () => toggles[event.key - 1]?.click() : null);
    if (!action) return;
    event.preventDefault();
    action(event);
  });

  const scale = find("scale").getContext("2d"), strip = new ImageData(256, 1);
  new Uint32Array(strip.data.buffer).set(fields.colours);
  scale.putImageData(strip, 0, 0);
  find("scale-words").append(...[`−${told.limit} σ`, told.variable, `+${told.limit} σ`].map((word) => make("span", {}, word)));

  find("main").hidden = find("player").hidden = false;
  state.frame = opening();
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
