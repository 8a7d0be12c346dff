"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const LOWER = ["bfloat16", "float16"];
const ROW = 27;
const byId = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Calls and casts of all graphs, a cast in front of the first call that reads it.
const nodes = data.graphs.flatMap((graph, number) => {
  const casts = new Map(graph.casts.map((cast) => [cast.name, { ...cast, graph: number, isCast: true }]));
  const ordered = [];
  for (const call of graph.calls) {
    for (const name of call.casts) {
      if (casts.has(name)) ordered.push(casts.get(name));
      casts.delete(name);
    }
    ordered.push({ ...call, graph: number, isCast: false });
  }
  return [...ordered, ...casts.values()];
});
const precision = (node) => {
  const dtypes = node.isCast ? [node.to_dtype] : node.output_dtypes;
  if (dtypes.some((dtype) => LOWER.includes(dtype))) return "lower";
  return dtypes.includes("float32") ? "float32" : "other";
};
const ownKernel = (node) => node.isCast && node.fate && node.fate.kind === "kernel";
const readable = (bytes) => {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return `${Number(bytes.toPrecision(3))} ${units[unit]}`;
};
const dtypesOf = (node) => node.isCast
  ? `${node.from_dtype} to ${node.to_dtype}`
  : `${[...new Set(node.input_dtypes)].join(", ")} to ${[...new Set(node.output_dtypes)].join(", ")}`;
const opOf = (node) => node.isCast ? (node.of_weight ? "cast of a weight" : "cast") : node.inside ? `${node.op} in ${node.inside}` : node.op;

// The tree of modules; each holds the bytes of all that is inside, by precision.
const root = { name: data.model, path: "", children: new Map(), bytes: { lower: 0, float32: 0, other: 0 }, casts: 0, casting: 0 };
for (const node of nodes) {
  let module = root;
  const parts = node.module ? node.module.split(".") : [];
  const visited = [root];
  parts.forEach((part, depth) => {
    if (!module.children.has(part)) {
      const path = parts.slice(0, depth + 1).join(".");
      module.children.set(part, { name: part, path, children: new Map(), bytes: { lower: 0, float32: 0, other: 0 }, casts: 0, casting: 0 });
    }
    module = module.children.get(part);
    visited.push(module);
  });
  for (const each of visited) {
    each.casts += node.isCast;
    each.casting += ownKernel(node) ? 1 : 0;
    if (!node.isCast) each.bytes[precision(node)] += node.bytes_now;
  }
}
const total = (module) => Math.max(1, module.bytes.lower + module.bytes.float32 + module.bytes.other);

const blocks = [];
const place = (module, left, width, depth, parent) => {
  const [lower, float32] = ["lower", "float32"].map((key) => 100 * module.bytes[key] / total(module));
  const block = make("button", { type: "button", textContent: module.casts ? `${module.name} \u00b7 ${module.casts}` : module.name });
  block.setAttribute("role", "treeitem");
  block.setAttribute("aria-level", depth + 1);
  block.setAttribute("aria-selected", "false");
  block.title = `${module.path || data.model}: ${readable(total(module))} of results, ${module.casts} casts, ${module.casting} of them kernels`;
  block.classList.toggle("casting", module.casting > 0);
  Object.assign(block.style, {
    left: `${left}%`, width: `${width}%`, top: `${depth * ROW}px`,
    background: `linear-gradient(90deg, var(--lower) ${lower}%, var(--float32) ${lower}% ${lower + float32}%, var(--other) ${lower + float32}%)`,
  });
  const entry = { block, module, parent, children: [] };
  block.addEventListener("click", () => select(entry));
  block.addEventListener("keydown", (event) => move(event, entry));
  blocks.push(entry);
  byId("modules").append(block);
  let start = left;
  for (const child of module.children.values()) {
    const share = width * total(child) / Math.max(total(module), [...module.children.values()].reduce((sum, each) => sum + total(each), 0));
    entry.children.push(place(child, start, share, depth + 1, entry));
    start += share;
  }
  return entry;
};
const depthOf = (module) => 1 + Math.max(0, ...[...module.children.values()].map(depthOf));
byId("modules").style.height = `${depthOf(root) * ROW}px`;
const top_ = place(root, 0, 100, 0, null);

let selected = top_;
const select = (entry) => {
  selected = entry;
  for (const { block } of blocks) block.setAttribute("aria-selected", "false");
  entry.block.setAttribute("aria-selected", "true");
  list();
};
const move = (event, entry) => {
  const siblings = entry.parent ? entry.parent.children : [entry];
  const index = siblings.indexOf(entry);
  const target = {
    ArrowDown: entry.children[0], ArrowUp: entry.parent,
    ArrowRight: siblings[index + 1], ArrowLeft: siblings[index - 1],
  }[event.key];
  if (target) { event.preventDefault(); target.block.focus(); }
};

const shown = (node) => {
  const path = selected.module.path;
  if (path && node.module !== path && !node.module.startsWith(`${path}.`)) return false;
  const words = byId("search").value.toLowerCase();
  const text = [opOf(node), node.module, node.line, node.reason, dtypesOf(node), node.name].join(" ").toLowerCase();
  if (words && !text.includes(words)) return false;
  const kind = byId("kind").value;
  if (kind === "cast") return node.isCast;
  if (kind === "kernel") return Boolean(ownKernel(node));
  if (kind === "overflow") return Boolean(node.error && node.error.overflowed);
  return !kind || (!node.isCast && precision(node) === kind);
};
const key = { bytes: (node) => node.bytes_now, own: (node) => (node.error ? node.error.own : 0) };
const bytesOf = (node) => node.bytes_now;
const number = (value) => (value === undefined ? "" : value.toExponential(1));

function list() {
  const order = byId("order").value;
  const found = nodes.filter(shown);
  if (order) found.sort((one, other) => key[order](other) - key[order](one));
  byId("nodes").replaceChildren(...found.map((node) => {
    const row = make("tr", { tabIndex: 0 },
      make("td", { textContent: node.module }),
      make("td", { textContent: opOf(node) }),
      make("td", {}, make("span", { className: `dtype ${precision(node)}`, textContent: dtypesOf(node) })),
      make("td", { className: "number", textContent: readable(bytesOf(node)) }),
      make("td", { className: "number", textContent: number(node.error?.own) }),
      make("td", { className: "number", textContent: number(node.error?.accumulated) }),
      make("td", { textContent: node.line }));
    row.classList.toggle("overflow", Boolean(node.error && node.error.overflowed));
    row.addEventListener("click", () => detail(node));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") detail(node); });
    return row;
  }));
  byId("count").textContent = `${found.length} of ${nodes.length}`;
}

function detail(node) {
  const facts = {
    "because": node.reason, "of": node.source, "module": node.module || "(no module)", "line": node.line, "node": `${node.name}, graph ${node.graph}`,
    "dtypes": dtypesOf(node), "captured as": node.captured_dtypes?.join(", "), "shape": node.shape?.join(" \u00d7 "),
    "bytes": node.isCast ? `${readable(node.bytes_now)} (${node.bytes})` : readable(node.bytes_now),
    "became": node.fate && `${node.fate.kind} ${node.fate.kernels.join(", ")}`, "read by": node.users?.join(", "),
    "error added": node.error && number(node.error.own), "error so far": node.error && number(node.error.accumulated),
    "largest": node.error && number(node.error.largest), "overflows": node.error && (node.error.overflowed ? "yes" : "no"),
  };
  const close = make("button", { type: "button", textContent: "close" });
  close.addEventListener("click", () => { byId("detail").hidden = true; });
  const terms = Object.entries(facts).filter(([, value]) => value);
  byId("detail").replaceChildren(close, make("h2", { textContent: opOf(node) }),
    make("dl", {}, ...terms.flatMap(([term, value]) => [make("dt", { textContent: term }), make("dd", { textContent: value })])));
  byId("detail").hidden = false;
}

for (const id of ["search", "kind", "order"]) byId(id).addEventListener("input", list);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { byId("detail").hidden = true; byId("search").value = ""; byId("kind").value = ""; select(top_); }
  if (event.key === "/" && document.activeElement !== byId("search")) { event.preventDefault(); byId("search").focus(); }
});
const themes = document.documentElement.dataset;
themes.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
byId("theme").addEventListener("click", () => { themes.theme = themes.theme === "dark" ? "light" : "dark"; });
const casts = nodes.filter((node) => node.isCast);
byId("totals").textContent = `${nodes.length - casts.length} calls, ${casts.length} casts of ${readable(casts.reduce((sum, cast) => sum + cast.bytes_now, 0))}, `
  + `${casts.filter(ownKernel).length} of them kernels of their own; ${data.graphs.length} graph${data.graphs.length === 1 ? "" : "s"}`;
select(top_);
