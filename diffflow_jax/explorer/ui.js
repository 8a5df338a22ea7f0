// The page: reads the controls, runs the table, draws.
"use strict";

window.onerror = null;
const POINTS = 240, ERROR_POINTS = 60;
const FIRST = {
  solver: "ddim", grid: "flow matching", steps: "6", dial: "0", chosen: "",
  strength: "1", scale: "1", density: "flow_matching",
  weighting: "flow_matching", target: "u (flow)", axis: "logsnr", when: "1",
};
// a row (a, b): the network predicts a x + b eps, on the scale vp
const TARGETS = {
  "x": () => [1, 0],
  "eps": () => [0, 1],
  "v": (alpha, sigma) => [-sigma, alpha],
  "u (flow)": (alpha, sigma) => [-1, 1],
};
const $ = (id) => document.getElementById(id);
const color = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

async function unpack() {
  const packed = Uint8Array.from(
    atob($("numbers").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream()
    .pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// A canvas in the pixels of the screen, cleared.
function paper(id) {
  const canvas = $(id), ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) ||
      canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  return {g, width, height};
}

// Axes of a small chart; gives the functions from numbers to pixels.
function axes(id, xs, ys, ticks) {
  const {g, width, height} = paper(id);
  const left = 44, bottom = 24, top = 8, right = 10;
  const X = (x) => left + (x - xs[0]) / (xs[1] - xs[0]) * (width - left - right);
  const Y = (y) =>
    height - bottom - (y - ys[0]) / (ys[1] - ys[0]) * (height - bottom - top);
  g.font = "12px system-ui, sans-serif";
  g.fillStyle = color("--soft");
  g.strokeStyle = color("--line");
  g.lineWidth = 1;
  g.beginPath();
  g.moveTo(left, top); g.lineTo(left, height - bottom);
  g.lineTo(width - right, height - bottom);
  g.stroke();
  g.textAlign = "center"; g.textBaseline = "top";
  for (const [x, text] of ticks.x)
    g.fillText(text, X(x), height - bottom + 6);
  g.textAlign = "right"; g.textBaseline = "middle";
  for (const [y, text] of ticks.y) {
    g.fillText(text, left - 5, Y(y));
    g.globalAlpha = 0.5;
    g.beginPath(); g.moveTo(left, Y(y)); g.lineTo(width - right, Y(y)); g.stroke();
    g.globalAlpha = 1;
  }
  return {g, X, Y, width, height};
}

function line(chart, xs, ys, name, thick = 2) {
  const {g, X, Y} = chart;
  g.strokeStyle = color(name);
  g.lineWidth = thick;
  g.beginPath();
  let down = false;
  for (let i = 0; i < xs.length; i++) {
    if (!Number.isFinite(ys[i])) { down = false; continue; }
    if (down) g.lineTo(X(xs[i]), Y(ys[i])); else g.moveTo(X(xs[i]), Y(ys[i]));
    down = true;
  }
  g.stroke();
}

const plain = (ticks) => ticks.map((v) => [v, String(v)]);

function start(data) {
  const state = {...FIRST};
  for (const [key, value] of new URLSearchParams(location.hash.slice(1)))
    if (key in state) state[key] = value;
  const fill = (id, names) => {
    for (const name of names) $(id).add(new Option(name, name));
  };
  fill("solver", Object.keys(data.solvers));
  fill("grid", Object.keys(data.schedules));
  fill("density", Object.keys(data.recipes));
  fill("weighting", Object.keys(data.recipes));
  fill("target", Object.keys(TARGETS));
  $("steps").max = data.steps.length - 1;
  $("dial").max = data.dials.length - 1;
  const ids = Object.keys(FIRST);
  const show = () => {
    for (const id of ids) $(id).value = state[id];
    for (const id of ids) if ($(id).value === "") {
      if (id === "chosen") continue;
      state[id] = FIRST[id];
      $(id).value = FIRST[id];
    }
  };
  show();

  const noise = normals(7, 2 * POINTS);
  const draws = (point) => {
    const own = normals(1000 + point, 2 * 200);
    return (row) => [own[2 * row], own[2 * row + 1]];
  };
  const exact = (() => {
    const u = normals(99, 2 * POINTS), m = data.mixture;
    return Array.from({length: POINTS}, (_, i) => ({
      of: (chosen) => {
        const own = m.means.map((_, k) => k)
          .filter((k) => chosen === null || m.classes[k] === chosen);
        const k = own[i % own.length];
        return [m.means[k][0] + m.stds[k] * u[2 * i],
                m.means[k][1] + m.stds[k] * u[2 * i + 1]];
      },
    }));
  })();

  // what the controls mean
  const choice = () => {
    const dials = data.solvers[state.solver] !== null;
    const step = +state.steps, dial = dials ? +state.dial : 0;
    const table = data.tables[state.grid][state.solver][dial][step];
    const chosen = state.chosen === "" ? null : +state.chosen;
    const strength = chosen === null ? 1 : +state.strength;
    const random = table.mix.some((row) =>
      row.some((part) => part[part.length - 1] !== 0));
    return {table, chosen, strength, dials, dial, step, random};
  };
  const from = (table, i) => {
    const s = table.start[1];
    return [s * noise[2 * i], s * noise[2 * i + 1]];
  };

  let walked = null;  // the ways of all points, on the scale vp

  function walk() {
    const c = choice(), t = c.table, n = t.target.length;
    const ways = [], angles = [];
    for (let i = 0; i < n; i++) angles.push(Math.atan2(t.sigma[i], t.alpha[i]));
    for (let i = 0; i < POINTS; i++) {
      const way = [];
      const end = run(t, data.mixture, from(t, i), draws(i), c.chosen,
        c.strength, (row, x, y) => way.push(x, y));
      way.push(end[0], end[1]);
      ways.push(way);
    }
    angles.push(0);
    walked = {...c, ways, angles, n};
  }

  // what one state of the scale vp is on the scale of the picture
  const gain = (angle, p) =>
    Math.pow(Math.pow(Math.cos(angle), p) + Math.pow(Math.sin(angle), p), -1 / p);

  function drawPlane() {
    const {g, width, height} = paper("plane");
    const {ways, angles, n} = walked, p = +state.scale;
    const gains = angles.map((angle) => gain(angle, p));
    const unit = Math.min(width, height) / 7;
    const X = (x) => width / 2 + unit * x, Y = (y) => height / 2 - unit * y;
    const m = data.mixture;
    m.means.forEach((mean, k) => {  // the data, at two standard deviations
      g.beginPath();
      g.arc(X(mean[0]), Y(mean[1]), 2 * m.stds[k] * unit, 0, 2 * Math.PI);
      const on = walked.chosen === null || m.classes[k] === walked.chosen;
      g.strokeStyle = color(on ? "--b" : "--ghost");
      g.lineWidth = on ? 2 : 1;
      g.stroke();
    });
    const now = +state.when * n, whole = Math.min(n, Math.floor(now));
    const part = now - whole;
    const at = (way, i) => [gains[i] * way[2 * i], gains[i] * way[2 * i + 1]];
    g.strokeStyle = color("--a");
    g.globalAlpha = 0.22;
    g.lineWidth = 1;
    g.beginPath();
    const dots = [];
    for (const way of ways) {
      let [x, y] = at(way, 0);
      g.moveTo(X(x), Y(y));
      for (let i = 1; i <= whole; i++) {
        [x, y] = at(way, i);
        g.lineTo(X(x), Y(y));
      }
      if (part > 0 && whole < n) {
        const next = at(way, whole + 1);
        x += part * (next[0] - x);
        y += part * (next[1] - y);
        g.lineTo(X(x), Y(y));
      }
      dots.push(x, y);
    }
    g.stroke();
    g.globalAlpha = 1;
    g.fillStyle = color("--a");
    g.beginPath();
    for (let i = 0; i < dots.length; i += 2) {
      g.moveTo(X(dots[i]) + 2.4, Y(dots[i + 1]));
      g.arc(X(dots[i]), Y(dots[i + 1]), 2.4, 0, 2 * Math.PI);
    }
    g.fill();
  }

  function drawSchedule() {
    const p = +state.scale, over = state.axis;
    const phi = data.schedules[state.grid];
    const xs = over === "t" ? data.times : data.logsnr;
    const angles = over === "t" ? phi :
      data.logsnr.map((l) => Math.atan(Math.exp(-l / 2)));
    const alpha = angles.map((a) => gain(a, p) * Math.cos(a));
    const sigma = angles.map((a) => gain(a, p) * Math.sin(a));
    const range = over === "t" ? [0, 1] : [-15, 15];
    const chart = axes("schedule", range, [0, 1.1], {
      x: over === "t" ? plain([0, 0.5, 1]) : plain([-15, -10, -5, 0, 5, 10, 15]),
      y: plain([0, 0.5, 1]),
    });
    line(chart, xs, alpha, "--a");
    line(chart, xs, sigma, "--b");
    const {g, X, Y} = chart;
    g.strokeStyle = color("--c");
    g.lineWidth = 1.5;
    g.beginPath();
    for (const angle of walked.angles) {
      let x = -2 * Math.log(Math.tan(Math.max(angle, 1e-9)));
      if (over === "t") x = timeOf(phi, angle);
      if (x < range[0] || x > range[1]) x = x < range[0] ? range[0] : range[1];
      g.moveTo(X(x), Y(0)); g.lineTo(X(x), Y(0.08));
    }
    g.stroke();
  }

  // the time at which a schedule has an angle, between its samples
  function timeOf(phi, angle) {
    let i = 1;
    while (i < phi.length - 1 && phi[i] < angle) i++;
    const f = (angle - phi[i - 1]) / (phi[i] - phi[i - 1] || 1);
    return data.times[i - 1] + Math.min(1, Math.max(0, f)) / (phi.length - 1);
  }

  function drawTraining() {
    const phi = data.schedules[state.grid];
    const logP = data.recipes[state.density].log_p;
    const logW = data.recipes[state.weighting].log_w;
    const row = TARGETS[state.target];
    const factor = data.logsnr.map((l, i) => {
      const alpha = Math.sqrt(1 / (1 + Math.exp(-l)));
      const sigma = Math.sqrt(1 / (1 + Math.exp(l)));
      const [a, b] = row(alpha, sigma);
      // of eps: y = a x + b eps moves by (alpha b - sigma a)/alpha a unit of eps
      const d = (alpha * b - sigma * a) / alpha;
      return logP[i] > -50 ? logW[i] - logP[i] - 2 * Math.log(Math.abs(d)) : NaN;
    });
    const scaled = (ys, weight) => {
      const top = Math.max(...ys.filter(
        (y, i) => Number.isFinite(y) && weight[i] > -6));
      return ys.map((y) => Math.exp(y - top));
    };
    const relative = logP.map((y) => y - Math.max(...logP));
    let curves = [scaled(logP, relative), scaled(logW, relative),
                  scaled(factor, relative)];
    let xs = data.logsnr, range = [-15, 15], ticks = [-15, -10, -5, 0, 5, 10, 15];
    if (state.axis === "t") {
      xs = data.logsnr.map((l) => timeOf(phi, Math.atan(Math.exp(-l / 2))));
      const speed = xs.map((_, i) => {
        const j = Math.max(1, Math.min(xs.length - 2, i));
        return Math.abs((xs[j + 1] - xs[j - 1]) /
          (data.logsnr[j + 1] - data.logsnr[j - 1]));
      });
      const p = curves[0].map((y, i) => speed[i] > 1e-5 ? y / speed[i] : NaN);
      const top = Math.max(...p.filter(Number.isFinite));
      curves = [p.map((y) => y / top), curves[1], curves[2]];
      range = [0, 1]; ticks = [0, 0.5, 1];
    }
    const chart = axes("training", range, [0, 1.1], {
      x: plain(ticks), y: [[0, "0"], [1, "top"]]});
    chart.g.save();
    chart.g.beginPath();
    chart.g.rect(44, 0, chart.width - 54, chart.height - 23);
    chart.g.clip();
    curves.forEach((ys, i) => line(chart, xs, ys, ["--a", "--b", "--c"][i]));
    chart.g.restore();
  }

  function drawParts() {
    const parts = contributions(walked.table), n = parts.u.length;
    const all = [...parts.u, ...parts.noise];
    const low = Math.min(0, ...all), high = Math.max(0, ...all) || 0.01;
    const chart = axes("parts", [-0.5, n + 0.5], [low, 1.05 * high], {
      x: plain([0, Math.floor(n / 2), n]),
      y: [low, 0, high].filter((v, i, a) => a.indexOf(v) === i)
        .map((v) => [v, v.toFixed(2)]),
    });
    const {g, X, Y} = chart, wide = (X(1) - X(0)) * 0.4;
    const bars = (values, shift, name) => {
      g.fillStyle = color(name);
      values.forEach((v, i) => g.fillRect(
        X(i) + shift * wide - wide / 2, Math.min(Y(v), Y(0)), wide,
        Math.abs(Y(v) - Y(0))));
    };
    bars([...parts.u], -0.5, "--a");
    if (walked.random) bars([...parts.noise], 0.5, "--b");
  }

  function distance(a, b) {
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  }

  // energy distance of two sets, all pairs but a point with itself
  function energy(a, b) {
    const mean = (p, q, same) => {
      let sum = 0;
      for (let i = 0; i < p.length; i++)
        for (let j = 0; j < q.length; j++)
          if (!same || i !== j) sum += distance(p[i], q[j]);
      return sum / (p.length * (same ? q.length - 1 : q.length));
    };
    return 2 * mean(a, b) - mean(a, a, true) - mean(b, b, true);
  }

  let later = 0;
  const known = new Map();  // errors by what they depend on

  function errorsOf(solver, c) {
    const key = [solver, state.grid, c.chosen, c.strength].join();
    if (known.has(key)) return known.get(key);
    const fineKey = ["fine", state.grid, c.chosen, c.strength].join();
    const tables = data.tables[state.grid];
    const ends = (t) => Array.from({length: ERROR_POINTS}, (_, i) =>
      run(t, data.mixture, from(t, i), () => [0, 0], c.chosen, c.strength));
    if (!known.has(fineKey)) known.set(fineKey, ends(tables.fine));
    const fine = known.get(fineKey);
    const made = tables[solver][0].map((t) => {
      const off = ends(t).map((end, i) => distance(end, fine[i]) ** 2);
      const rms = Math.sqrt(off.reduce((a, b) => a + b) / off.length);
      return [t.target.length, Math.max(rms, 1e-6)];
    });
    known.set(key, made);
    return made;
  }

  function drawErrors() {
    const c = choice();
    const others = Object.keys(data.solvers)
      .filter((s) => data.solvers[s] === null || s === "ddim");
    const chart = axes("errors", [0, Math.log10(160)], [-4, 0.7], {
      x: [1, 2, 5, 10, 20, 50, 100].map((v) => [Math.log10(v), String(v)]),
      y: [-4, -3, -2, -1, 0].map((v) => [v, `1e${v}`]),
    });
    const draw = (solver, name, thick) => {
      const points = errorsOf(solver, c);
      line(chart, points.map((q) => Math.log10(q[0])),
        points.map((q) => Math.max(-4, Math.log10(q[1]))), name, thick);
    };
    for (const solver of others) draw(solver, "--ghost", 1);
    if (others.includes(state.solver)) {
      draw(state.solver, "--a", 3);
      const now = errorsOf(state.solver, c)[c.step];
      const {g, X, Y} = chart;
      g.fillStyle = color("--a");
      g.beginPath();
      g.arc(X(Math.log10(now[0])), Y(Math.max(-4, Math.log10(now[1]))), 5, 0, 7);
      g.fill();
    }
  }

  function say() {
    const w = walked, ends = w.ways.map((way) => way.slice(-2));
    const p = +state.scale, gains = w.angles.map((angle) => gain(angle, p));
    let long = 0, direct = 0;
    for (const way of w.ways) {
      let last = [gains[0] * way[0], gains[0] * way[1]];
      const first = last;
      for (let i = 1; i <= w.n; i++) {
        const here = [gains[i] * way[2 * i], gains[i] * way[2 * i + 1]];
        long += distance(here, last);
        last = here;
      }
      direct += distance(first, last);
    }
    const real = exact.map((e) => e.of(w.chosen));
    const off = Math.max(0, energy(ends, real));
    const own = w.chosen === null ? "" : ` of class ${w.chosen}` +
      (w.strength === 1 ? "" : `, guided by ${w.strength}`);
    const text = [
      `${POINTS} samples${own} by ${state.solver}: ${data.steps[w.step]} ` +
      `step${data.steps[w.step] === 1 ? "" : "s"}, ${w.n} ` +
      `evaluation${w.n === 1 ? "" : "s"}.`,
      `Energy distance to exact draws ${off.toFixed(3)}.`,
      `On this scale a way is ${(long / direct).toFixed(2)} times as long as ` +
      "the straight line.",
    ];
    if (!w.random || data.solvers[state.solver] === "eta" && w.dial === 0) {
      const error = errorsOf(state.solver, w)[w.step][1];
      text.push("Distance to the exact solution from the same noise: " +
        `${error.toPrecision(2)}.`);
    } else {
      text.push("Noise is drawn on the way, so there is no one solution.");
    }
    $("said").textContent = text.join(" ");
  }

  function labels() {
    const c = choice(), put = (id, text) => {
      document.querySelector(`output[for=${id}]`).textContent = text;
    };
    put("steps", `${data.steps[c.step]} (${c.table.target.length} evaluations)`);
    const what = data.solvers[state.solver];
    $("dial-name").textContent = what === "churn" ? "Churn" :
      what === "eta" ? "eta" : "Noise";
    put("dial", what === null ? "this solver has none" : data.dials[+state.dial]);
    $("dial").disabled = what === null;
    put("strength", c.chosen === null ? "choose a class" : state.strength);
    $("strength").disabled = c.chosen === null;
    put("scale", (+state.scale).toFixed(2));
  }

  let asked = false, changed = new Set();
  function redraw() {
    asked = false;
    const began = performance.now();
    const again = changed.has("walk");
    if (again) walk();
    labels();
    drawPlane();
    if (again || changed.has("curves")) {
      drawSchedule();
      drawTraining();
    }
    if (again) drawParts();
    if (again || changed.has("curves")) {  // when the hand rests
      clearTimeout(later);
      later = setTimeout(() => { drawErrors(); say(); }, 120);
    }
    changed = new Set();
    window.frameTime = performance.now() - began;
  }
  function ask(...what) {
    what.forEach((name) => changed.add(name));
    if (!asked) {
      asked = true;
      requestAnimationFrame(redraw);
    }
  }

  const CURVES = ["scale", "density", "weighting", "target", "axis"];
  for (const id of ids) $(id).addEventListener("input", () => {
    state[id] = $(id).value;
    if (id === "when") stop();
    if (id !== "when") {
      const hash = new URLSearchParams(ids
        .filter((key) => key !== "when" && state[key] !== FIRST[key])
        .map((key) => [key, state[key]]));
      history.replaceState(null, "", `#${hash}`);
    }
    ask(id === "when" ? "plane" : CURVES.includes(id) ? "curves" : "walk");
  });

  let playing = false;
  function stop() {
    playing = false;
    $("play").textContent = "Play";
    $("play").setAttribute("aria-pressed", "false");
  }
  $("play").addEventListener("click", () => {
    if (playing) return stop();
    playing = true;
    $("play").textContent = "Stop";
    $("play").setAttribute("aria-pressed", "true");
    let last = null;
    if (+state.when >= 1) state.when = "0";
    const tick = (now) => {
      if (!playing) return;
      if (last !== null)
        state.when = String(Math.min(1, +state.when + (now - last) / 3000));
      last = now;
      $("when").value = state.when;
      ask("plane");
      if (+state.when >= 1) stop(); else requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
  });
  $("reset").addEventListener("click", () => {
    Object.assign(state, FIRST);
    history.replaceState(null, "", "#");
    show();
    ask("walk");
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("resize", () => ask("walk"));
  matchMedia("(prefers-color-scheme: dark)")
    .addEventListener("change", () => ask("walk"));
  walk();
  ask("walk");
}

unpack().then(start);
