// Asks this host once a second and shows the answer. Every text comes from other hosts or from callers: it becomes the
// content of text nodes, never HTML.

const EVERY = 1000, PATIENCE = 5000, HISTORY = 60, MOST_NODES = 12, MOST_ROWS = 100;
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

const sorted = {edges: [], links: [], peers: [], ejected: []};  // by table: column and direction, once chosen
const history = new Map();                                      // by edge: bytes a second, the last HISTORY times
let state = null, chosen = null, heard = null;

function node(name, properties = {}, ...children) {
  const made = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(properties))
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  made.append(...children.map((child) => child instanceof Node ? child : String(child)));
  return made;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit++; }
  return `${unit ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

function span(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const [minutes, hours, days] = [60, 3600, 86400].map((unit) => Math.floor(seconds / unit));
  return days ? `${days} d ${hours % 24} h` : hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
}

const clock = (seconds) => `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
const rate = (edge) => edge.sent_per_s + edge.received_per_s;
const isFailing = (edge) => edge.failing_s !== undefined && edge.failing_s !== null;
const isSlow = (edge) => (edge.stalled ?? 0) > 0 && edge.stalled_s >= 2;
const place = (edge) => edge.host ?? "no host";
const key = (edge) => JSON.stringify([edge.direction, edge.caller, edge.caller_host, edge.service, edge.host]);

// What is shown of the edges: those that contain what is searched for, and belong to the chosen node.

function visible() {
  const wanted = $("search").value.trim().toLowerCase();
  return state.edges.filter((edge) =>
    (!wanted || [edge.caller, edge.caller_host, edge.service, place(edge)].some((text) => text.toLowerCase().includes(wanted)))
    && (!chosen || value(edge, chosen.column) === chosen.name));
}

const value = (edge, column) => column === 0 ? edge.caller_host : column === 1 ? edge.service : place(edge);

function showProblems() {
  const lines = state.problems.map((problem) => node("li", {class: problem.kind === "reader" ? "reader" : null},
    node("span", {class: "kind"}, problem.kind), problem.text,
    node("time", {datetime: new Date(problem.since * 1000).toISOString()},
      `since ${clock(problem.since)}, for ${span(Math.max(0, state.at - problem.since))}`)));
  $("problems").replaceChildren(...lines);
  $("fine").hidden = lines.length > 0;
  document.title = lines.length ? `(${lines.length}) Hostlane ${state.host}` : `Hostlane ${state.host}`;
}

// The graph: three columns, at most MOST_NODES names in each; what is beyond them is one node, "N others".

function columns(edges) {
  return [0, 1, 2].map((column) => {
    const weights = new Map();
    for (const edge of edges) {
      const name = value(edge, column);
      const urgent = isFailing(edge) || isSlow(edge) ? 1e15 : 0;
      weights.set(name, (weights.get(name) ?? 0) + urgent + rate(edge) + edge.streams);
    }
    const names = [...weights].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
    const kept = names.slice(0, MOST_NODES).sort();
    return {kept: new Set(kept), names: names.length > MOST_NODES ? [...kept, null] : kept, more: names.length - MOST_NODES};
  });
}

function showGraph(edges) {
  const found = columns(edges), step = 34, left = [10, 400, 790], width = 200;
  const height = 40 + step * Math.max(1, ...found.map((column) => column.names.length));
  const graph = $("graph"), focused = document.activeElement?.dataset?.node;
  graph.setAttribute("viewBox", `0 0 1000 ${height}`);
  const shownAs = (edge, column) => found[column].kept.has(value(edge, column)) ? value(edge, column) : null;
  const y = (column, name) => 44 + step * found[column].names.indexOf(name);
  const lines = new Map();
  for (const edge of edges) for (const column of [0, 1]) {
    const ends = [shownAs(edge, column), shownAs(edge, column + 1)], at = JSON.stringify([column, ...ends]);
    const line = lines.get(at) ?? {column, ends, rate: 0, streams: 0, failed: 0, bad: false, slow: false};
    line.rate += rate(edge); line.streams += edge.streams; line.failed += edge.failed;
    line.bad ||= isFailing(edge); line.slow ||= isSlow(edge);
    lines.set(at, line);
  }
  const drawn = [...lines.values()].sort((a, b) => a.bad - b.bad || b.rate - a.rate).map((line) => {
    const [from, to] = [left[line.column] + width, left[line.column + 1]], middle = (from + to) / 2;
    const [top, end] = [y(line.column, line.ends[0]), y(line.column + 1, line.ends[1])];
    const what = `${line.ends.map((name) => name ?? "others").join(" to ")}: ${line.streams} streams, ${bytes(line.rate)}/s, ${line.failed} errors`;
    return node("svg:path", {
      d: `M${from} ${top}C${middle} ${top} ${middle} ${end} ${to} ${end}`,
      "stroke-width": (1.5 + Math.log2(1 + line.rate) / 1.6).toFixed(1),
      class: line.bad ? "bad" : line.slow ? "slow" : null,
    }, node("svg:title", {}, what));
  });
  const heads = ["calling hosts", "services", "offering hosts"].map((text, column) =>
    node("svg:text", {class: "head", x: left[column], y: 18}, text));
  const nodes = found.flatMap((column, number) => column.names.map((name) => {
    const pressed = chosen !== null && chosen.column === number && chosen.name === name;
    const label = name ?? `${column.more} others`, at = JSON.stringify([number, name]);
    const made = node("svg:g", name === null ? {} : {
      role: "button", tabindex: 0, "aria-pressed": String(pressed), "aria-label": `${label}: show only this`, "data-node": at,
    }, node("svg:rect", {x: left[number], y: y(number, name) - 13, width, height: 26, rx: 4}),
       node("svg:text", {x: left[number] + 8, y: y(number, name) + 4}, label.length > 26 ? `${label.slice(0, 25)}…` : label));
    if (name !== null) {
      const choose = () => { chosen = pressed ? null : {column: number, name}; show(); };
      made.addEventListener("click", choose);
      made.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
      });
    }
    return made;
  }));
  graph.replaceChildren(...heads, ...drawn, ...nodes);
  if (focused) [...graph.querySelectorAll("[data-node]")].find((made) => made.dataset.node === focused)?.focus();
  $("clear").hidden = chosen === null && !$("search").value;
  const beyond = state.more_edges ? `, and ${state.more_edges} that are less busy` : "";
  $("shown").textContent = `${edges.length} of ${state.edges.length} edges${beyond}`;
}

// Tables. A column: its name, the value that it is sorted by, and what a cell shows, if that is something else.

function table(name, found, columns, bad = () => false) {
  const made = $(name), [by, downwards] = sorted[name], focused = document.activeElement?.dataset?.column;
  const rows = found.slice();
  if (by !== undefined) {
    const of = columns.find((column) => column[0] === by)[1];
    rows.sort((a, b) => (of(a) < of(b) ? -1 : of(a) > of(b) ? 1 : 0) * (downwards ? -1 : 1));
  }
  const isNumber = (column) => found.length > 0 && typeof column[1](found[0]) === "number";
  const head = node("tr", {}, ...columns.map((column) => {
    const button = node("button", {type: "button", "data-column": `${name} ${column[0]}`}, column[0]);
    button.addEventListener("click", () => {
      sorted[name] = by === column[0] ? [column[0], !downwards] : [column[0], isNumber(column)];
      show();
    });
    const direction = by !== column[0] ? null : downwards ? "descending" : "ascending";
    return node("th", {scope: "col", "aria-sort": direction, class: isNumber(column) ? "number" : null}, button);
  }));
  const body = rows.slice(0, MOST_ROWS).map((row) => node("tr", {class: bad(row) ? "bad" : null}, ...columns.map((column) =>
    node("td", {class: column[3] ?? (isNumber(column) ? "number" : null)}, (column[2] ?? column[1])(row)))));
  if (rows.length > MOST_ROWS)
    body.push(node("tr", {}, node("td", {colspan: columns.length}, `and ${rows.length - MOST_ROWS} more: search, or sort`)));
  made.replaceChildren(made.querySelector("caption"), node("thead", {}, head), node("tbody", {}, ...body));
  made.hidden = found.length === 0;
  if (focused) [...made.querySelectorAll("button")].find((button) => button.dataset.column === focused)?.focus();
}

function spark(values) {
  const most = Math.max(1, ...values);
  const points = values.map((each, at) => `${at * 80 / (HISTORY - 1)},${17 - 15 * each / most}`).join(" ");
  return node("svg:svg", {class: "spark", viewBox: "0 0 80 18", "aria-hidden": "true"}, node("svg:polyline", {points}));
}

function showTables(edges) {
  table("edges", edges, [
    ["caller", (edge) => edge.caller],
    ["on", (edge) => edge.caller_host],
    ["service", (edge) => edge.service],
    ["host", place],
    ["streams", (edge) => edge.streams],
    ["opened/s", (edge) => edge.opened_per_s, (edge) => edge.opened_per_s.toFixed(1)],
    ["sent/s", (edge) => edge.sent_per_s, (edge) => bytes(edge.sent_per_s)],
    ["received/s", (edge) => edge.received_per_s, (edge) => bytes(edge.received_per_s)],
    ["last minute", rate, (edge) => spark(history.get(key(edge)) ?? [])],
    ["held back", (edge) => edge.stalled ?? 0, (edge) => edge.stalled ? `${edge.stalled} by ${edge.stalled_by}, ${span(edge.stalled_s)}` : "0"],
    ["errors", (edge) => edge.failed],
    ["last error", (edge) => edge.reason ?? "", (edge) => !edge.reason ? "–" : isFailing(edge) ? `${edge.reason}, for ${span(edge.failing_s)}` : edge.reason],
  ], isFailing);
  table("links", state.links, [
    ["link", (link) => link.id],
    ["peer", (link) => link.peer],
    ["direction", (link) => link.direction],
    ["streams", (link) => link.streams],
    ["age", (link) => link.age_s, (link) => span(link.age_s)],
    ["idle", (link) => link.idle_s, (link) => span(link.idle_s)],
    ["round trip", (link) => link.rtt_ms ?? -1, (link) => link.rtt_ms === null ? "–" : `${link.rtt_ms.toFixed(2)} ms`],
    ["queueing", (link) => link.queueing, (link) => `${(100 * link.queueing).toFixed(0)} %`],
    ["not acknowledged", (link) => link.unacked, (link) => bytes(link.unacked)],
    ["kept for", (link) => link.ttl_s ?? -1, (link) => link.ttl_s === null ? "–" : span(link.ttl_s)],
    ["why", whyKept, whyKept, "why"],
  ], (link) => link.suspended_s !== null);
  table("peers", state.peers, [
    ["host", (peer) => peer.name],
    ["address", (peer) => peer.address],
    ["state", stateOf],
    ["links", (peer) => peer.links],
    ["streams", (peer) => peer.streams],
    ["waiting", (peer) => peer.waiting],
    ["handshakes", (peer) => peer.handshakes],
    ["resumed", (peer) => peer.resumed],
    ["dialled again in", (peer) => peer.retry_in_s ?? -1, (peer) => peer.retry_in_s === null ? "–" : span(peer.retry_in_s)],
    ["last error", (peer) => peer.last_error ?? "", (peer) => peer.last_error ?? "–", "why"],
  ], (peer) => stateOf(peer) !== "up" && peer.last_error !== null && !peer.idle);
  table("ejected", state.ejected, [
    ["service", (each) => each.service],
    ["host", (each) => each.host],
    ["left alone for", (each) => each.left_s, (each) => span(each.left_s)],
    ["why", (each) => each.times, (each) => `opens failed there; the ${each.times}. time in a row, and longer each time`, "why"],
  ], () => true);
}

const stateOf = (peer) => peer.idle ? "idle" : peer.state;

function whyKept(link) {
  if (link.suspended_s !== null) return `suspended for ${span(link.suspended_s)}: ${link.suspended_why}`;
  const why = link.leaving ? "leaving" : link.ttl_reason || "the peer decides";
  return link.resumed ? `${why} (resumed ${link.resumed} times)` : why;
}

function show() {
  if (state === null) return;
  $("host").textContent = state.host;
  const control = state.control === null ? "no control plane" : state.control.server === null
    ? "control plane not reached" : `control plane ${state.control.server}`;
  $("summary").textContent = [
    `version ${state.version}`, `up ${span(state.uptime_s)}`, `${state.streams} streams open, ${state.opened} opened, ${state.failed} failed`,
    `memory ${bytes(state.memory_used)} of ${bytes(state.memory_limit)}`, `${state.handshakes_avoided} handshakes avoided`, control,
    ...(state.draining ? ["draining: it takes no more calls"] : []),
  ].join(" · ");
  const edges = visible();
  showProblems(); showGraph(edges); showTables(edges);
}

function remember() {
  const known = new Set(state.edges.map(key));
  for (const edge of state.edges) {
    const values = history.get(key(edge)) ?? [];
    values.push(rate(edge));
    history.set(key(edge), values.slice(-HISTORY));
  }
  for (const each of history.keys()) if (!known.has(each)) history.delete(each);
}

async function ask() {
  try {
    const answer = await fetch("state.json", {signal: AbortSignal.timeout(PATIENCE), cache: "no-store"});
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    state = await answer.json();
    heard = Date.now() / 1000;
    $("stale").hidden = true;
    remember();
    show();
  } catch (error) {
    const since = heard === null ? "" : ` What is below is of ${clock(heard)}.`;
    $("stale").textContent = `This host does not answer (${error.message}).${since}`;
    $("stale").hidden = false;
  }
  setTimeout(ask, EVERY);
}

$("search").addEventListener("input", show);
$("clear").addEventListener("click", () => { chosen = null; $("search").value = ""; show(); });
ask();
