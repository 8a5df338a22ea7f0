// A sampler is a table: these lines run any of them, as dfj.sample does.
"use strict";

// The posterior mean of a mixture in the plane, E[x | z = alpha x + sigma eps],
// of all components, or with classifier-free guidance towards a class:
//     x̂ = x̂_null + w (x̂_class - x̂_null)
// Writes it to out: no allocation, so that a slider moves 40,000 of them a frame.
const logs = new Float64Array(64);
function predict(mixture, x, y, alpha, sigma, chosen, strength, out) {
  const n = mixture.means.length, all = chosen === null || strength !== 1;
  let top = -Infinity, best = -Infinity;
  for (let k = 0; k < n; k++) {
    const s = mixture.stds[k], v = alpha * alpha * s * s + sigma * sigma;
    const dx = x - alpha * mixture.means[k][0];
    const dy = y - alpha * mixture.means[k][1];
    logs[k] = Math.log(mixture.weights[k] / v) - (dx * dx + dy * dy) / (2 * v);
    if (logs[k] > top) top = logs[k];
    if (mixture.classes[k] === chosen && logs[k] > best) best = logs[k];
  }
  let total = 0, mx = 0, my = 0, part = 0, cx = 0, cy = 0;
  for (let k = 0; k < n; k++) {
    const own = mixture.classes[k] === chosen;
    if (!all && !own) continue;
    const s = mixture.stds[k], m = mixture.means[k];
    const gain = alpha * s * s / (alpha * alpha * s * s + sigma * sigma);
    const px = m[0] + gain * (x - alpha * m[0]);
    const py = m[1] + gain * (y - alpha * m[1]);
    if (all) {
      const r = Math.exp(logs[k] - top);
      total += r; mx += r * px; my += r * py;
    }
    if (own) {
      const r = Math.exp(logs[k] - best);
      part += r; cx += r * px; cy += r * py;
    }
  }
  if (chosen === null) {
    out[0] = mx / total; out[1] = my / total;
  } else if (!all) {
    out[0] = cx / part; out[1] = cy / part;
  } else {
    out[0] = mx / total + strength * (cx / part - mx / total);
    out[1] = my / total + strength * (cy / part - my / total);
  }
}

// Runs a table on one point. draw(row) gives two normal numbers; see(i, x, y) is
// called with the state at every evaluation. Returns the sample.
function run(table, mixture, start, draw, chosen, strength, see) {
  const n = table.target.length, kept = table.mix[0][0].length - 3;
  let ax = start[0], ay = start[1], zx = ax, zy = ay;
  const hx = new Float64Array(kept), hy = new Float64Array(kept);
  const x = [0, 0];
  for (let i = 0; i <= n; i++) {
    const a = table.mix[i][0], z = table.mix[i][1];
    let xi = [0, 0];
    if (a[kept + 2] !== 0 || z[kept + 2] !== 0) xi = draw(i);
    let nax = a[0] * ax + a[1] * zx + a[kept + 2] * xi[0];
    let nay = a[0] * ay + a[1] * zy + a[kept + 2] * xi[1];
    let nzx = z[0] * ax + z[1] * zx + z[kept + 2] * xi[0];
    let nzy = z[0] * ay + z[1] * zy + z[kept + 2] * xi[1];
    for (let j = 0; j < kept; j++) {
      nax += a[j + 2] * hx[j];
      nay += a[j + 2] * hy[j];
      nzx += z[j + 2] * hx[j];
      nzy += z[j + 2] * hy[j];
    }
    ax = nax; ay = nay; zx = nzx; zy = nzy;
    if (i === n) break;
    if (see) see(i, zx, zy);
    const alpha = table.alpha[i], sigma = table.sigma[i];
    predict(mixture, zx, zy, alpha, sigma, chosen, strength, x);
    const ca = table.target[i][0], cb = table.target[i][1];
    for (let j = kept - 1; j > 0; j--) {
      hx[j] = hx[j - 1];
      hy[j] = hy[j - 1];
    }
    hx[0] = ca * x[0] + (cb ? cb * (zx - alpha * x[0]) / sigma : 0);
    hy[0] = ca * x[1] + (cb ? cb * (zy - alpha * x[1]) / sigma : 0);
  }
  return [ax, ay];
}

// The weight of every û = ε̂ - x̂ and every noise draw in the sample: the same
// walk, with vectors of weights in the place of states. Entry 0 is the start.
function contributions(table) {
  const n = table.target.length, kept = table.mix[0][0].length - 3;
  const size = 2 * n + 2;
  const unit = (i) => { const v = new Float64Array(size); v[i] = 1; return v; };
  let a = unit(0), z = unit(0);
  let h = Array.from({length: kept}, () => new Float64Array(size));
  for (let i = 0; i <= n; i++) {
    const mixed = table.mix[i].map((row) => {
      const v = new Float64Array(size);
      for (let s = 0; s < size; s++) {
        v[s] = row[0] * a[s] + row[1] * z[s];
        for (let j = 0; j < kept; j++) v[s] += row[j + 2] * h[j][s];
      }
      v[n + 1 + i] += row[kept + 2];
      return v;
    });
    a = mixed[0]; z = mixed[1];
    if (i === n) break;
    const alpha = table.alpha[i], sigma = table.sigma[i];
    // x̂ = (z - sigma û)/(alpha + sigma), ε̂ = (z + alpha û)/(alpha + sigma)
    const ca = table.target[i][0], cb = table.target[i][1];
    const own = new Float64Array(size), both = alpha + sigma;
    for (let s = 0; s < size; s++) own[s] = (ca + cb) * z[s] / both;
    own[1 + i] += (cb * alpha - ca * sigma) / both;
    h = [own, ...h.slice(0, kept - 1)];
  }
  return {start: a[0], u: a.slice(1, n + 1), noise: a.slice(n + 1)};
}

// Normal numbers that are a function of (seed, index): the same at every visit.
function normals(seed, count) {
  let state = seed >>> 0;
  const uniform = () => {  // mulberry32
    state = (state + 0x6D2B79F5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const out = new Float64Array(count);
  for (let i = 0; i < count; i += 2) {
    const r = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    out[i] = r * Math.cos(angle);
    if (i + 1 < count) out[i + 1] = r * Math.sin(angle);
  }
  return out;
}
