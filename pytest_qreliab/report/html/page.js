"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const pooled = place => data.pool[place];
  const BETTER = { higher: "higher is better", lower: "lower is better", neither: "any change is harm" };
  const SIGNS = {
    pass: ["✓", "pass"],
    fail: ["✗", "fail"],
    inconclusive: ["?", "inconclusive"],
    unsettled: ["✗?", "inconclusive, which fails"],
  };

  // Elements. Texts go in as text, never as markup.

  function fill(element, attributes, inside) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) element.setAttribute(name, value);
    }
    element.append(...inside.flat(Infinity).filter(part => part !== null && part !== ""));
    return element;
  }
  const tag = (name, attributes = {}, ...inside) => fill(document.createElement(name), attributes, inside);
  const draw = (name, attributes = {}, ...inside) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, inside);

  // A name or a path, which may break where its parts meet.
  const parts = text => text.split(/(?<=[._/])/).flatMap((part, index) => (index ? [tag("wbr"), part] : [part]));

  // Numbers, which are in ten-thousandths, or texts where four decimals are not what is written.

  const value = packed => (typeof packed === "string" ? Number(packed.replace("inf", "Infinity")) : packed / 1e4);

  function written(packed, plus = "") {
    if (packed === null) return "";
    const text = typeof packed === "string" ? packed : (packed / 1e4).toFixed(4);
    return (text.startsWith("-") || text === "nan" ? "" : plus) + text.replaceAll("-", "−");
  }
  const four = plain => written(Math.round(1e4 * plain));
  const percent = share => `${(100 * share).toFixed(1)} %`;

  // Tables

  function scroller(label, table) {
    return tag("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, table);
  }

  function table(caption, heads, rows, attributes = {}) {
    return tag(
      "table",
      attributes,
      tag("caption", {}, caption),
      tag(
        "thead",
        {},
        tag(
          "tr",
          {},
          heads.map(head => (head instanceof Element ? head : tag("th", { scope: "col" }, head))),
        ),
      ),
      tag(
        "tbody",
        {},
        rows.map(([first, ...rest]) =>
          tag(
            "tr",
            {},
            tag("th", { scope: "row" }, parts(first)),
            rest.map(cell => (cell instanceof Element ? cell : tag("td", {}, cell))),
          ),
        ),
      ),
    );
  }
  const words = (...inside) => tag("td", { class: "text" }, inside);
  const wordsHead = text => tag("th", { scope: "col", class: "text" }, text);
  const SHORT = 44; // letters that stay on one line

  function below(text) {
    if (!text) return null;
    return text.length > SHORT ? tag("small", {}, parts(text)) : tag("small", { class: "whole" }, text);
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      head.setAttribute("aria-sort", "none");
      const button = tag("button", { type: "button" }, head.textContent);
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach(other =>
          other.setAttribute("aria-sort", other === head ? (up ? "ascending" : "descending") : "none"),
        );
        sort(table.tBodies[0], column, up);
      });
    });
  }

  const collator = new Intl.Collator("en", { numeric: true });

  const NUMBER = /^[−+]?(\d[\d.,]*(e[−+]\d+)?|inf)( [kMG]B|%| of \d+)?$/;

  function sortKey(cell) {
    const by = document.getElementById("by");
    const change = by && by.value === "change" && cell.closest("#matrix") && cell.querySelector("small");
    const of = change || cell.querySelector("a") || cell;
    const text = [...of.childNodes]
      .filter(node => node.nodeType === Node.TEXT_NODE)
      .map(node => node.data)
      .join("")
      .trim();
    const shown = text || (cell.querySelector("b") ? cell.querySelector("b").getAttribute("aria-label") : "");
    const scale = { kB: 1e3, MB: 1e6, GB: 1e9 }[shown.split(" ")[1]] || 1;
    const plain = shown.replaceAll("−", "-").replaceAll(",", "").replace("inf", "Infinity");
    return { shown, number: NUMBER.test(shown) ? Number.parseFloat(plain) * scale : Number.NaN };
  }

  // What is not a number comes after the numbers and what is empty last, whichever way it is sorted.
  function sort(body, column, up) {
    const keyed = [...body.rows].map(row => ({ row, key: sortKey(row.cells[column]) }));
    const rank = key => (key.shown === "" ? 2 : Number.isNaN(key.number) ? 1 : 0);
    keyed.sort(({ key: a }, { key: b }) => {
      if (rank(a) !== rank(b)) return rank(a) - rank(b);
      const order = rank(a) === 0 ? a.number - b.number : collator.compare(a.shown, b.shown);
      return Number.isNaN(order) ? 0 : up ? order : -order;
    });
    body.append(...keyed.map(({ row }) => row));
  }

  // The matrix and its filters

  const matrix = document.getElementById("matrix");
  const filters = document.getElementById("filters");

  function filter() {
    const [text, verdict, aspect] = ["text", "verdict", "aspect"].map(id => document.getElementById(id).value);
    const [groups, names] = matrix.tHead.rows;
    const columns = [...names.cells].map(cell => !aspect || !cell.dataset.aspect || cell.dataset.aspect === aspect);
    [...names.cells].forEach((cell, column) => {
      cell.hidden = !columns[column];
    });
    [...groups.cells].slice(1).forEach(cell => {
      cell.hidden = aspect !== "" && cell.textContent.toLowerCase() !== aspect;
    });
    const wanted = text.trim().toLowerCase().split(/\s+/);
    const there = new Set();
    let count = 0;
    for (const row of matrix.tBodies[0].rows) {
      [...row.cells].forEach((cell, column) => {
        cell.hidden = !columns[column];
      });
      if (!row.dataset.case) continue;
      const details = document.getElementById(`case-${row.dataset.case}`);
      const name = details.querySelector("h3").textContent.toLowerCase();
      row.hidden = !(wanted.every(word => name.includes(word)) && judged(row, verdict, aspect));
      details.hidden = row.hidden;
      if (!row.hidden) {
        count += 1;
        there.add(row.dataset.group);
      }
    }
    for (const row of matrix.querySelectorAll(".full")) row.hidden = !there.has(row.dataset.group);
    const all = data.cases.length;
    document.getElementById("shown").textContent = count === all ? `${all} shown` : `${count} of ${all} shown`;
  }

  // Of one aspect its own gates decide, of all of them the case.
  function judged(row, verdict, aspect) {
    const gates = [...row.cells].filter(cell => !cell.hidden && cell.querySelector("b") && cell.tagName === "TD");
    if (aspect && gates.length === 0) return false;
    const failed = aspect
      ? gates.some(cell => cell.matches(".fail, .unsettled"))
      : row.cells[0].querySelector("b").className === "fail";
    if (verdict === "inconclusive") return gates.some(cell => cell.matches(".inconclusive, .unsettled"));
    return verdict === "" || (verdict === "fail") === failed;
  }

  if (matrix) {
    sortable(matrix);
    filters.hidden = false;
    filters.addEventListener("submit", event => event.preventDefault());
    filters.addEventListener("input", event => {
      const head = matrix.querySelector("[aria-sort$=ending]");
      if (event.target.id !== "by") filter();
      else if (head) sort(matrix.tBodies[0], head.cellIndex, head.getAttribute("aria-sort") === "ascending");
    });
    filter();
  }

  // Charts

  const WIDTH = 340,
    HEIGHT = 250;

  function linear(from, to, low, high) {
    const at = x => low + ((x - from) / (to - from)) * (high - low);
    const rough = (to - from) / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find(of => of * power >= rough) * power;
    const ticks = [];
    for (let n = Math.ceil(from / step - 1e-9); n * step <= to + step * 1e-9; n += 1) ticks.push(n * step);
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    return { at, ticks: ticks.map(tick => [tick, tick.toFixed(Math.min(digits, 9)).replace("-", "−")]) };
  }

  function logarithmic(from, to, low, high) {
    const at = x => low + (Math.log(x / from) / Math.log(to / from)) * (high - low);
    const ticks = [];
    const factors = to / from < 100 ? [1, 2, 5] : [1];
    const decades = Math.ceil(Math.log10(to / from) / 6);
    for (let power = Math.floor(Math.log10(from)); power <= Math.log10(to); power += 1) {
      for (const factor of factors) {
        const tick = factor * 10 ** power;
        if (power % decades === 0 && tick >= from * (1 - 1e-9) && tick <= to * (1 + 1e-9)) ticks.push(tick);
      }
    }
    const label = tick =>
      tick >= 1e4 || tick < 1e-3
        ? tick.toExponential(0).replace("+", "").replace("-", "−")
        : String(Number(tick.toPrecision(3)));
    return { at, ticks: ticks.map(tick => [tick, label(tick)]) };
  }

  // The ends of an axis that holds all values; a little apart where they are one.
  function span(values, log = false) {
    const there = values.filter(of => Number.isFinite(of) && (!log || of > 0));
    if (there.length === 0) return log ? [0.1, 1] : [0, 1];
    const [low, high] = [Math.min(...there), Math.max(...there)];
    if (log) return low === high ? [low / 2, high * 2] : [low, high];
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    return [low - room, high + room];
  }

  function frame({ title, sentence, x, y, width = WIDTH, height = HEIGHT, left = 54, wide = false }, inside) {
    const [top, right, bottom] = [8, width - 10, height - 54];
    const scale = axis => (axis.log ? logarithmic : linear);
    const across = scale(x)(...x.span, left, right);
    const up = y ? scale(y)(...y.span, bottom, top) : { ticks: [] };
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": sentence });
    for (const [tick, label] of across.ticks) {
      const at = across.at(tick).toFixed(1);
      svg.append(
        draw("path", { class: "grid", d: `M${at},${top}V${bottom}` }),
        draw("text", { x: at, y: bottom + 14, "text-anchor": "middle" }, label),
      );
    }
    for (const [tick, label] of up.ticks) {
      const at = up.at(tick).toFixed(1);
      svg.append(
        draw("path", { class: "grid", d: `M${left},${at}H${right}` }),
        draw("text", { x: left - 6, y: Number(at) + 4, "text-anchor": "end" }, label),
      );
    }
    svg.append(
      draw("path", { class: "axis", fill: "none", d: `M${left},${top}V${bottom}H${right}` }),
      draw("text", { x: (left + right) / 2, y: bottom + 29, "text-anchor": "middle" }, x.label),
      draw(
        "text",
        { transform: `translate(10 ${(top + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" },
        y ? y.label : "",
      ),
    );
    inside(svg, across.at, up.at, { left, right, top, bottom });
    return tag("figure", wide ? { class: "wide" } : {}, tag("figcaption", {}, title), svg);
  }

  function legend(svg, { left, bottom }, items) {
    let at = left;
    for (const [mark, text] of items) {
      svg.append(mark(at, bottom + 45), draw("text", { x: at + 28, y: bottom + 49 }, text));
      at += 28 + 6.2 * text.length + 18;
    }
  }
  const stroke = kind => (x, y) => draw("path", { class: `line ${kind}`, d: `M${x},${y}h22` });

  function path(across, up, [xs, ys]) {
    const there = xs.map((x, index) => [across(x), up(ys[index])]).filter(point => point.every(Number.isFinite));
    return there.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");
  }

  // A line each, full precision's first; one alone is of the quantized model.
  function lines(chart, curves, names, guide = null) {
    const kinds = curves.length === 1 ? ["alone"] : ["full", "quantized"];
    return frame(chart, (svg, across, up, box) => {
      if (guide) svg.append(draw("path", { class: "guide", d: path(across, up, guide) }));
      curves.forEach((curve, index) => {
        const positive = chart.y.log
          ? [curve[0].filter((_, at) => curve[1][at] > 0), curve[1].filter(y => y > 0)]
          : curve;
        svg.append(draw("path", { class: `line ${kinds[index]}`, d: path(across, up, positive) }));
      });
      legend(
        svg,
        box,
        curves.map((_, index) => [stroke(kinds[index]), names[index]]),
      );
    });
  }

  const BOTH = ["full precision", "quantized"];
  const UNIT = [0, 1];

  function reliability(models) {
    const gap = bins =>
      bins.reduce((found, [confidence, accuracy, share]) => found + share * Math.abs(confidence - accuracy), 0);
    const [before, after] = models.map(bins => four(gap(bins)));
    const chart = {
      title: "Reliability",
      sentence:
        "Reliability diagram: accuracy by confidence. " +
        `The mean gap between the two is ${before} in full precision and ${after} quantized.`,
      x: { label: "confidence", span: UNIT },
      y: { label: "accuracy", span: UNIT },
    };
    const shapes = [
      (x, y, r) => draw("circle", { class: "mark full", cx: x, cy: y, r }),
      (x, y, r) => draw("rect", { class: "mark quantized", x: x - r, y: y - r, width: 2 * r, height: 2 * r }),
    ];
    return frame(chart, (svg, across, up, box) => {
      svg.append(draw("path", { class: "guide", d: path(across, up, [UNIT, UNIT]) }));
      models.forEach((bins, index) => {
        const at = [bins.map(of => of[0]), bins.map(of => of[1])];
        svg.append(draw("path", { class: `line faint ${["full", "quantized"][index]}`, d: path(across, up, at) }));
        for (const [confidence, accuracy, share] of bins) {
          const mark = shapes[index](across(confidence), up(accuracy), 2 + 6 * Math.sqrt(share) * (index ? 0.9 : 1));
          mark.append(
            draw(
              "title",
              {},
              `${BOTH[index]}: confidence ${confidence}, accuracy ${accuracy}, ${percent(share)} of the samples`,
            ),
          );
          svg.append(mark);
        }
      });
      legend(svg, box, [
        [(x, y) => draw("g", {}, stroke("full")(x, y), shapes[0](x + 11, y, 4)), BOTH[0]],
        [(x, y) => draw("g", {}, stroke("quantized")(x, y), shapes[1](x + 11, y, 3.5)), BOTH[1]],
      ]);
    });
  }

  // The share detected where that share of ID is flagged.
  function detected([flagged, found], at) {
    return found.reduce((best, y, index) => (flagged[index] <= at ? Math.max(best, y) : best), 0);
  }

  // An axis for all values of the curves: 0 for x, 1 for y.
  function axis(label, curves, which, log = false) {
    const values = curves.flatMap(of => of[which]);
    return { label, span: span(values, log), log };
  }

  function roc(name, curves) {
    const [before, after] = curves.map(curve => percent(detected(curve, 0.05)));
    const chart = {
      title: `ROC, ${name}`,
      sentence:
        `ROC curve of ${name}: where 5 % of the in-distribution samples are flagged, ` +
        `full precision detects ${before} of the OOD samples, the quantized model ${after}.`,
      x: { label: "false positive rate (ID flagged)", span: UNIT },
      y: { label: "true positive rate (OOD detected)", span: UNIT },
    };
    return lines(chart, curves, BOTH, [UNIT, UNIT]);
  }

  function spectrum(name, curves) {
    const [before, after] = curves.map(of => of[1]);
    const moved = before.map((power, at) => Math.abs(after[at] / power - 1)).filter(Number.isFinite);
    const chart = {
      title: `Power spectrum, ${name}`,
      sentence:
        `Power spectrum after ${name}, logarithmic, by frequency: ` +
        `quantization changes the power by ${percent(Math.max(...moved, 0))} at most.`,
      x: axis("frequency (cycles per patch)", curves, 0),
      y: axis("mean power", curves, 1, true),
    };
    return lines(chart, curves, BOTH);
  }

  function singularValues(curves) {
    const [before, after] = curves.map(([, values]) => `from ${values[0]} to ${values.at(-1)}`);
    const chart = {
      title: "Singular values",
      sentence:
        `Singular values of the centred image features by rank, from 1 to ${curves[0][0].at(-1)}, both logarithmic: ` +
        `in full precision ${before}, quantized ${after}.`,
      x: axis("rank", curves, 0, true),
      y: axis("singular value", curves, 1, true),
    };
    return lines(chart, curves, BOTH);
  }

  function sqnr(curve) {
    const [ranks, values] = curve;
    const chart = {
      title: "Signal over quantization error, by rank",
      sentence:
        "Signal over quantization error by rank, which is logarithmic: " +
        `${values[0]} dB at rank ${ranks[0]}, ${values.at(-1)} dB at rank ${ranks.at(-1)}.`,
      x: axis("rank", [curve], 0, true),
      y: axis("SQNR (dB)", [curve], 1),
    };
    return lines(chart, [curve], ["quantized"]);
  }

  // Kinds are rows, or columns where there are few severities.
  function corruptions(of, title) {
    const kinds = Object.keys(of);
    const severities = [...new Set(Object.values(of).flatMap(Object.keys))].sort(collator.compare);
    const moved = Object.values(of)
      .flatMap(Object.values)
      .map(([before, after]) => Math.abs(after - before));
    const largest = Math.max(...moved, 0.001);
    const cell = (kind, severity) => {
      if (!of[kind][severity]) return "";
      const [before, after] = of[kind][severity];
      const points = Math.round(1000 * (after - before));
      const change = written(1000 * points, "+").slice(0, -3);
      const found = tag("td", points > 0 ? { class: "gain" } : {}, (100 * after).toFixed(1), below(change));
      found.style.setProperty("--moved", ((0.3 * Math.abs(after - before)) / largest).toFixed(3));
      return found;
    };
    const plain = kind => kind.replaceAll("_", " ");
    const upright = severities.length > 2;
    const heads = upright ? ["corruption", ...severities] : ["severity", ...kinds.map(plain)];
    const rows = upright
      ? kinds.map(kind => [plain(kind), ...severities.map(severity => cell(kind, severity))])
      : severities.map(severity => [severity, ...kinds.map(kind => cell(kind, severity))]);
    const caption =
      "Accuracy of the quantized model by corruption and severity, %, with the change in percentage points.";
    return scroller(title, table(caption, heads, rows, { class: "cells" }));
  }

  // Gates

  function gates(of) {
    const columns = Object.fromEntries(Object.entries(of).map(([name, place]) => [name, pooled(place)]));
    return columns.of.map(([metric, limit, most, text, where], at) => ({
      metric,
      limit,
      most,
      where,
      limited: `${limit} ${text}`,
      ...Object.fromEntries(
        Object.entries(columns)
          .filter(([name]) => name !== "of")
          .map(([name, column]) => [name, column[at]]),
      ),
    }));
  }

  function gateTable(found, title) {
    const accepted = found.some(gate => gate.accepted !== null);
    const heads = [
      "metric",
      wordsHead("verdict"),
      "full precision",
      ...(accepted ? ["accepted"] : []),
      "quantized",
      "harm, interval",
      wordsHead("limit, set in"),
      wordsHead("method"),
    ];
    const rows = found.map(gate => {
      const settle = gate.settling && `about ${gate.settling.toLocaleString("en")} samples would settle it`;
      const [low, high] = [written(gate.low), written(gate.high)];
      const interval = low || high ? `${low || "−∞"} to ${high || "∞"}` : "";
      const [mark, said] = SIGNS[gate.state];
      const verdict = words(tag("b", { class: gate.state, "aria-hidden": "true" }, mark), ` ${said}`, below(settle));
      verdict.classList.add(gate.state);
      return [
        gate.metric,
        verdict,
        written(gate.baseline),
        ...(accepted ? [written(gate.accepted)] : []),
        written(gate.quantized),
        tag("td", {}, written(gate.harm), below(interval || (gate.kernels !== null && `kernels: ${written(gate.kernels)}`))),
        words(parts(gate.limited), below(gate.where)),
        words(pooled(gate.method), below(gate.problem)),
      ];
    });
    return scroller(title, table("Harm is how much worse than full precision, as the limit counts it.", heads, rows));
  }

  // How much of its limit each gate uses up, of those whose limit is on a change.
  function margins(found, room) {
    const used = found
      .filter(gate => /^max_(drop|rise|change|relative_change|drift)$/.test(gate.limit) && gate.most > 0)
      .map(gate => {
        const share = packed => (packed === null ? null : value(packed) / gate.most);
        return { ...gate, at: share(gate.harm), from: share(gate.low), to: share(gate.high) };
      })
      .filter(gate => Number.isFinite(gate.at));
    if (used.length < 2) return null;
    const ends = used.flatMap(gate => [gate.at, gate.from ?? gate.at, gate.to ?? gate.at]);
    const shown = [Math.max(-3, Math.min(0, ...ends) - 0.1), Math.min(5, Math.max(1.2, ...ends) + 0.1)];
    const beyond = used.filter(gate => gate.at > 1).length;
    const off = gate => gate.at > shown[1] || gate.at < shown[0];
    const chart = {
      title: "Harm as a share of the limit" + (used.some(off) ? "; arrows lie beyond the axis" : ""),
      sentence:
        `Harm of ${used.length} gates as a share of their limits, with intervals: ${beyond} beyond the limit. ` +
        "The table above has the numbers.",
      x: { label: "harm / limit (1: at the limit)", span: shown },
      width: Math.min(Math.max(room, 300), 640),
      height: used.length * 18 + 66,
      left: 170,
      wide: true,
    };
    const kinds = { pass: "good", fail: "bad", inconclusive: "unsure", unsettled: "bad" };
    return frame(chart, (svg, across, _, box) => {
      svg.append(draw("path", { class: "limit", d: `M${across(1).toFixed(1)},${box.top}V${box.bottom}` }));
      const held = x => Math.min(Math.max(across(x), box.left), box.right);
      used.forEach((gate, index) => {
        const y = box.top + (index + 0.5) * ((box.bottom - box.top) / used.length);
        const name = gate.metric + (gate.limit === "max_drift" ? " (drift)" : "");
        const short = name.length > 27 ? `${name.slice(0, 26)}…` : name;
        svg.append(draw("text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, short));
        if (gate.from !== null || gate.to !== null) {
          const [low, high] = [gate.from ?? shown[0], gate.to ?? shown[1]].map(held);
          svg.append(
            draw("path", { class: `${kinds[gate.state]}-line`, d: `M${low.toFixed(1)},${y}H${high.toFixed(1)}` }),
          );
        }
        svg.append((off(gate) ? arrow : mark)(kinds[gate.state], held(gate.at), y, gate.at > 1));
      });
      legend(
        svg,
        { ...box, left: 0 },
        [
          ["good", "pass"],
          ["bad", "fail"],
          ["unsure", "inconclusive"],
        ].map(([kind, text]) => [(x, y) => mark(kind, x + 14, y), text]),
      );
    });
  }

  function mark(kind, x, y) {
    if (kind === "bad") return draw("path", { class: "bad", d: `M${x - 4},${y - 4}l8,8m0,-8l-8,8` });
    if (kind === "unsure") return draw("rect", { class: "unsure", x: x - 3.5, y: y - 3.5, width: 7, height: 7 });
    return draw("circle", { class: "good", cx: x, cy: y, r: 4 });
  }
  // For what is beyond the end of the axis.
  const arrow = (kind, x, y, right) =>
    draw("path", {
      class: `${kind}-line`,
      fill: "none",
      d: right ? `M${x - 5},${y - 5}l5,5l-5,5` : `M${x + 5},${y - 5}l-5,5l5,5`,
    });

  // A case, drawn when it is opened

  function others(of, title) {
    const [known, baseline, quantized, change, problem] = ["of", "baseline", "quantized", "change", "problem"].map(
      name => pooled(of[name]),
    );
    if (known.length === 0) return null;
    const details = tag("details", {}, tag("summary", {}, `${known.length} metrics without a gate`));
    details.addEventListener("toggle", () => {
      if (details.children.length > 1) return;
      const noted = problem.some(Boolean);
      const heads = [
        "metric",
        "full precision",
        "quantized",
        "change",
        wordsHead("better"),
        ...(noted ? [wordsHead("problem")] : []),
      ];
      const rows = known.map(([metric, better], at) => [
        metric,
        written(baseline[at]),
        written(quantized[at]),
        written(change[at], "+"),
        words(BETTER[better]),
        ...(noted ? [words(problem[at])] : []),
      ]);
      const found = table("Measured, but not gated.", heads, rows);
      sortable(found);
      details.append(scroller(title, found));
    });
    return details;
  }

  function controls(of, title) {
    if (of.problem) return [tag("p", {}, `No matched controls: ${of.problem}`)];
    const matched =
      { weights: "each weight errs by as much", features: "the features err by as much" }[of.matched] ?? of.matched;
    const ratios = of.residuals.map(([name, ratio]) => `${name} ${ratio}`).join(", ");
    const caption =
      `The change of each metric, with its interval, beside controls in which ${matched}. ` +
      `Error over signal of the features: ${ratios}.`;
    const conclusions = pooled(of.conclusions);
    const rows = pooled(of.of).map((metric, at) => [
      metric,
      ...of.changes[at].map(([change, low, high]) =>
        tag("td", {}, written(change, "+"), tag("small", {}, `${written(low, "+")} to ${written(high, "+")}`)),
      ),
      words(conclusions[at]),
    ]);
    return [
      scroller(title, table(caption, ["metric", ...of.residuals.map(([name]) => name), wordsHead("explained")], rows)),
    ];
  }

  function charts(of) {
    const curve = ([xs, ys]) => [pooled(xs), pooled(ys)];
    const both = pair => pair.length === 2 && pair.every(([xs]) => pooled(xs).length > 0);
    const found = [];
    if (of.reliability.length === 2) found.push(reliability(of.reliability.map(pooled)));
    const rates = pair => curve(pair).map(thousandths => thousandths.map(rate => rate / 1000));
    for (const [name, pair] of of.roc) if (both(pair)) found.push(roc(name, pair.map(rates)));
    if (both(of.singular_values)) found.push(singularValues(of.singular_values.map(curve)));
    if (pooled(of.sqnr[0]).length > 0) found.push(sqnr(curve(of.sqnr)));
    for (const [name, pair] of of.spectra) if (both(pair)) found.push(spectrum(name, pair.map(curve)));
    return found;
  }

  function list(pairs) {
    return tag(
      "dl",
      { class: "about" },
      pairs.map(([name, text]) => tag("div", {}, tag("dt", {}, parts(name)), tag("dd", {}, text))),
    );
  }

  function command(text) {
    const code = tag("code", {}, text);
    const said = tag("span", { role: "status" });
    const button = tag("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        said.textContent = "copied";
      } catch {
        getSelection().selectAllChildren(code);
        said.textContent = "selected";
      }
    });
    return tag("div", { class: "repeat" }, tag("pre", {}, code), button, said);
  }

  function open(details) {
    const body = details.querySelector("div");
    if (body.hasChildNodes()) return;
    const of = data.cases[details.dataset.case];
    const found = gates(of.gates);
    const name = details.querySelector("h3").textContent;
    const section = (title, ...inside) => {
      const there = inside.flat().filter(part => part !== null);
      return there.length ? [tag("h4", {}, title), ...there] : [];
    };
    const drawn = of.curves ? charts(of.curves) : [];
    const grid = of.curves ? pooled(of.curves.corruptions) : {};
    body.append(
      ...[
        of.warnings.length
          ? section(
              "Warnings",
              tag(
                "ul",
                { class: "notes" },
                of.warnings.map(text => tag("li", {}, text)),
              ),
            )
          : [],
        section("Gates", gateTable(found, `Gates of ${name}`), margins(found, body.clientWidth)),
        section("Other metrics", others(of.metrics, `Metrics without a gate of ${name}`)),
        section("Curves", drawn.length ? tag("div", { class: "charts" }, drawn) : null),
        section("Corruptions", Object.keys(grid).length ? corruptions(grid, `Corruptions of ${name}`) : null),
        of.controls ? section("Why it moved", controls(of.controls, `Controls of ${name}`)) : [],
        section("How it was measured", list(of.about.map(([name, place]) => [name, pooled(place)]))),
        section("Data", list(Object.entries(pooled(of.data)))),
        section("Environment", list(Object.entries(pooled(of.environment)))),
        section("Repeat it", command(of.repeat)),
      ].flat(),
    );
  }

  document.addEventListener(
    "toggle",
    event => {
      if (event.target.open && event.target.dataset.case) open(event.target);
    },
    true,
  );

  function follow() {
    const details = /^#case-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
    if (!details) return;
    details.open = true;
    open(details);
    details.scrollIntoView();
    details.querySelector("summary").focus({ preventScroll: true });
  }
  addEventListener("hashchange", follow);
  document.addEventListener("click", event => {
    const link = event.target.closest("a[href^='#case-']");
    if (link && link.hash === location.hash) follow();
  });
  follow();

  // Size against reliability

  const choice = document.getElementById("size-choice");

  function scatter() {
    const key = Number(document.getElementById("size-metric").value);
    const model = document.getElementById("size-model")?.value ?? data.sizes.models[0].model;
    const onFront = new Set(data.sizes.fronts[key]);
    const found = data.sizes.models
      .map((of, index) => ({ ...of, harm: of.harms[key], front: onFront.has(index) }))
      .filter(of => of.model === model && of.harm !== null);
    const name = data.sizes.names[key];
    document.querySelectorAll("#pareto tbody tr").forEach(row => {
      row.querySelector(".front").textContent = onFront.has(Number(row.dataset.index)) ? "yes" : "";
    });
    document.getElementById("front-of").textContent = name;
    const place = document.getElementById("scatter");
    const failed = found.filter(of => !of.passed).length;
    const front = found.filter(of => of.front);
    const named = front.map(of => `${of.name} with ${four(of.harm)}`).join(", ");
    const width = Math.round(Math.min(Math.max(place.clientWidth, 280), 736));
    const highest = Math.max(...found.map(of => of.share), 0.1);
    place.replaceChildren(
      frame(
        {
          title: `Share of full size against harm to ${name}`,
          sentence:
            `Share of full size against harm to ${name}, of ${found.length} models, ${failed} of which fail. ` +
            `On the front, from the smallest: ${named || "none"}.`,
          x: { label: "share of full size", span: [0, highest * 1.15] },
          y: { label: "harm (0: as full precision)", span: span([0, ...found.map(of => of.harm)]) },
          width,
          height: 340,
          left: 56,
          wide: true,
        },
        (svg, across, up, box) => {
          svg.append(draw("path", { class: "axis", d: `M${box.left},${up(0).toFixed(1)}H${box.right}` }));
          const steps = front.map((of, index) => {
            const [x, y] = [across(of.share).toFixed(1), up(of.harm).toFixed(1)];
            return index ? `H${x}V${y}` : `M${x},${y}`;
          });
          svg.append(draw("path", { class: "front", d: steps.join("") }));
          const taken = found.map(of => [across(of.share) - 5, up(of.harm) - 5, 10, 10]);
          for (const of of [...front, ...found.filter(of => !of.front)]) {
            const [x, y] = [across(of.share), up(of.harm)];
            const point = mark(of.passed ? "good" : "bad", x, y);
            point.append(
              draw(
                "title",
                {},
                `${of.name}: ${of.share} of full size, harm ${four(of.harm)}, ${of.passed ? "passes" : "fails"}`,
              ),
            );
            svg.append(point);
            const long = 6.2 * of.name.length;
            const free = [
              [x + 9, y + 4],
              [x + 9, y - 7],
              [x + 9, y + 15],
              [x - 9 - long, y + 4],
              [x - long / 2, y - 10],
              [x - long / 2, y + 20],
            ].find(
              ([at, base]) =>
                at > box.left &&
                at + long < box.right + 6 &&
                base < box.bottom - 2 &&
                base > box.top + 8 &&
                !taken.some(
                  ([tx, ty, tw, th]) => at < tx + tw && tx < at + long && base - 9 < ty + th && ty < base + 2,
                ),
            );
            if (!free) continue;
            taken.push([free[0], free[1] - 9, long, 11]);
            svg.append(draw("text", { class: "name", x: free[0].toFixed(1), y: free[1].toFixed(1) }, of.name));
          }
          legend(svg, box, [
            [(x, y) => mark("good", x + 14, y), "passes"],
            [(x, y) => mark("bad", x + 14, y), "fails"],
            [(x, y) => draw("path", { class: "front", d: `M${x},${y}h22` }), "front"],
          ]);
        },
      ),
    );
  }

  if (choice) {
    const pareto = document.getElementById("pareto");
    [...pareto.tBodies[0].rows].forEach((row, index) => {
      row.dataset.index = index;
    });
    sortable(pareto);
    choice.hidden = false;
    choice.addEventListener("submit", event => event.preventDefault());
    choice.addEventListener("input", scatter);
    addEventListener("resize", scatter);
    scatter();
  }
})();
