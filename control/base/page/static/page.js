// Asks whoever has served this page once a second and shows the answer: a proxy tells of its host, a control server of the
// mesh (state.mesh). Every text comes from hosts or callers: it becomes the content of text nodes, never HTML.

const EVERY = 1000, PATIENCE = 5000, HISTORY = 60, MOST_NODES = 12, MOST_ROWS = 100, MOST_PROBLEMS = 50;
const COLUMNS = ["caller_host", "service", "host"];
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

const sorted = {edges: [], services: [], links: [], hosts: [], ejected: []};  // by table: column and direction, once chosen
const history = new Map();                                      // by edge: bytes a second, the last HISTORY times
let state = null, chosen = null, heard = null, known = null;

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
const isCallerSlow = (edge) => (edge.direction !== "inbound") === (edge.stalled_by === "reader");
const place = (edge) => edge.host ?? "no host";
const key = (edge) => JSON.stringify([edge.direction, edge.caller, edge.caller_host, edge.service, edge.host]);

// What is shown of the edges: those that contain what is searched for, and belong to the chosen node. Of many, whoever is
// asked sends the busiest that are wanted; until it does, those that are here already are shown.

const wanted = () => $("search").value.trim().toLowerCase();

function query() {
  const found = new URLSearchParams();
  if (wanted()) found.set("search", wanted());
  if (chosen) found.set(COLUMNS[chosen.column], chosen.name);
  return String(found);
}

function visible() {
  return state.edges.filter((edge) =>
    [edge.caller, edge.caller_host, edge.service, place(edge)].some((text) => text.toLowerCase().includes(wanted()))
    && (!chosen || value(edge, chosen.column) === chosen.name));
}

const value = (edge, column) => column === 2 ? place(edge) : edge[COLUMNS[column]];

// What is wrong. The rows change each second, as their age does; a screen reader is told what is new, and what is over.

function showProblems() {
  const shown = state.problems.slice(0, MOST_PROBLEMS), more = state.problems.length - shown.length;
  const roles = {tr: "row", td: "cell"};  // which a narrow window would take from them with their layout
  const part = (name, properties, ...children) => node(name, {role: roles[name], ...properties}, ...children);
  const head = part("tr", {}, ...["where", "what", "since"].map((text) => part("th", {role: "columnheader", scope: "col"}, text)));
  const rows = shown.map((problem) => part("tr", {class: problem.kind === "reader" ? "reader" : null},
    part("th", {role: "rowheader", scope: "row"}, node("span", {class: "kind"}, problem.kind), " ", problem.name),
    part("td", {}, problem.text, ...(problem.told_by?.length ? [node("small", {}, `told by ${some(problem.told_by)}`)] : [])),
    part("td", {class: "since"}, node("time", {datetime: new Date(problem.since * 1000).toISOString()}, clock(problem.since)),
      node("small", {}, `for ${span(Math.max(0, state.at - problem.since))}`))));
  if (more > 0) rows.push(part("tr", {}, part("td", {colspan: 3}, `and ${more} more`)));
  $("problems").replaceChildren(node("thead", {role: "rowgroup"}, head), node("tbody", {role: "rowgroup"}, ...rows));
  $("problems").hidden = rows.length === 0;
  $("fine").hidden = rows.length > 0;
  $("fine").textContent = `Nothing that ${state.mesh ? "the control plane or any host" : "this host"} knows of.`;
  $("problems-title").textContent = rows.length ? `What is wrong (${state.problems.length})` : "What is wrong";
  document.title = `${rows.length ? `(${state.problems.length}) ` : ""}Hostlane ${title()}`;
  const now = new Map(state.problems.map((problem) => [`${problem.kind} ${problem.name}`, problem.text]));
  if (known !== null) {
    const begun = [...now].filter(([each]) => !known.has(each)).map(([, text]) => text);
    const over = [...known.keys()].filter((each) => !now.has(each)).map((each) => `No longer wrong: ${each}.`);
    if (begun.length || over.length) $("news").textContent = [...begun, ...over].slice(0, 5).join(" ");
  }
  known = now;
}

const title = () => state.mesh ? `mesh ${state.mesh}` : state.host;
const some = (names) => names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");

// Where in the drawing something is wrong: an edge whose host or link is, too, though its streams may only wait. A name is
// marked for what is wrong with itself: the hosts at both ends of a link that flaps are well.

function isBroken(edge) {
  return isFailing(edge) || state.problems.some((problem) => problem.kind === "host" ? problem.name === edge.host
    : problem.kind === "link" && (problem.name === `${edge.caller_host} to ${edge.host}` || problem.name === `${edge.host} to ${edge.caller_host}`));
}

function* faultyNames(edges) {  // column and name
  for (const edge of edges) if (isFailing(edge)) yield* [[1, edge.service], [2, place(edge)]];
  for (const {kind, name} of state.problems) {
    if (kind === "host") yield* [[0, name], [2, name]];
    if (kind === "service") yield [1, name];
  }
}

// The graph: three columns, at most MOST_NODES names in each; what is beyond them is one node, "N others".

function columns(edges, broken) {
  return [0, 1, 2].map((column) => {
    const weights = new Map();
    for (const edge of edges) {
      const name = value(edge, column);
      const urgent = broken.has(edge) || isSlow(edge) ? 1e15 : 0;
      weights.set(name, (weights.get(name) ?? 0) + urgent + rate(edge) + edge.streams);
    }
    const names = [...weights].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
    const kept = names.slice(0, MOST_NODES).sort();
    return {kept: new Set(kept), all: new Set(names), names: names.length > MOST_NODES ? [...kept, null] : kept, more: names.length - MOST_NODES};
  });
}

// What can be chosen stays the same element as long as it is there: a click that has begun, the focus, and what a screen
// reader has reached outlast the next answer.

const shownNames = new Map();
function nameOf(column, name) {
  const at = JSON.stringify([column, name]);
  if (!shownNames.has(at)) {
    const made = node("svg:g", name === null ? {} : {role: "button", tabindex: 0, "data-node": at});
    const choose = () => {
      chosen = chosen?.column === column && chosen?.name === name ? null : {column, name};
      show(); hurry();
    };
    if (name !== null) {
      made.addEventListener("click", choose);
      made.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); }
      });
    }
    shownNames.set(at, made);
  }
  return shownNames.get(at);
}

function put(parent, children) {
  if (parent.children.length === children.length && children.every((child, at) => parent.children[at] === child)) return;
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  parent.replaceChildren(...children);
  if (focused?.isConnected) focused.focus();
  for (const [at, made] of shownNames) if (!made.isConnected) shownNames.delete(at);
}

function showGraph(edges) {
  const broken = new Set(edges.filter(isBroken)), found = columns(edges, broken), step = 34, left = [10, 400, 790], width = 200;
  const height = 40 + step * Math.max(1, ...found.map((column) => column.names.length));
  const graph = $("graph");
  graph.setAttribute("viewBox", `0 0 1000 ${height}`);
  const shownAs = (edge, column) => found[column].kept.has(value(edge, column)) ? value(edge, column) : null;
  const y = (column, name) => 44 + step * found[column].names.indexOf(name);
  const lines = new Map(), marks = new Map();
  const mark = (column, name, how) => { if (how === "bad" || !marks.has(`${column} ${name}`)) marks.set(`${column} ${name}`, how); };
  for (const edge of edges)
    if (isSlow(edge)) for (const column of isCallerSlow(edge) ? [0] : [1, 2]) mark(column, shownAs(edge, column), "slow");
  for (const [column, name] of faultyNames(edges))
    if (found[column].all.has(name)) mark(column, found[column].kept.has(name) ? name : null, "bad");
  for (const edge of edges) for (const column of [0, 1]) {
    const ends = [shownAs(edge, column), shownAs(edge, column + 1)], at = JSON.stringify([column, ...ends]);
    const line = lines.get(at) ?? {column, ends, rate: 0, streams: 0, failed: 0, bad: false, slow: false};
    line.rate += rate(edge); line.streams += edge.streams; line.failed += edge.failed;
    line.bad ||= broken.has(edge); line.slow ||= isSlow(edge);
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
  if (!edges.length) heads.push(node("svg:text", {class: "head", x: left[0], y: 48}, "no stream lately"));
  const names = found.flatMap((column, number) => column.names.map((name) => {
    const pressed = chosen !== null && chosen.column === number && chosen.name === name;
    const label = name ?? `${column.more} others`, how = marks.get(`${number} ${name}`);
    const made = nameOf(number, name);
    if (name !== null) {
      made.setAttribute("aria-pressed", String(pressed));
      made.setAttribute("aria-label", `${label}${how === "bad" ? ", something fails" : how === "slow" ? ", held back" : ""}: show only this`);
    }
    made.setAttribute("class", how ?? "");
    made.replaceChildren(node("svg:rect", {x: left[number], y: y(number, name) - 13, width, height: 26, rx: 4}),
      node("svg:text", {x: left[number] + 8, y: y(number, name) + 4}, label.length > 26 ? `${label.slice(0, 25)}…` : label));
    return made;
  }));
  if (!graph.children.length) graph.append(node("svg:g"), node("svg:g"));
  graph.children[0].replaceChildren(...heads, ...drawn);
  put(graph.children[1], names);
  $("clear").hidden = chosen === null && !$("search").value;
  const beyond = state.more_edges ? `, and ${state.more_edges} that are less busy` : "";
  $("shown").textContent = `${edges.length} of ${state.all_edges} edges${beyond}`;
}

// Tables. A column: its name, the value that it is sorted by, and what a cell shows, if that is something else.

const heads = new Map();  // by table and its columns
function headOf(name, columns) {
  const at = `${name} ${columns.map(([title]) => title).join()}`;
  if (!heads.has(at)) heads.set(at, node("tr", {}, ...columns.map(([title]) => {
    const button = node("button", {type: "button"}, title), made = node("th", {scope: "col"}, button);
    button.addEventListener("click", () => {
      const [by, downwards] = sorted[name];
      sorted[name] = [title, by === title ? !downwards : made.className === "number"];
      show();
    });
    return made;
  })));
  return heads.get(at);
}

function table(name, found, columns, bad = () => false, more = 0) {
  const made = $(name), [by, downwards] = sorted[name], head = headOf(name, columns);
  const rows = found.slice();
  if (by !== undefined) {
    const of = columns.find((column) => column[0] === by)[1];
    rows.sort((a, b) => (of(a) < of(b) ? -1 : of(a) > of(b) ? 1 : 0) * (downwards ? -1 : 1));
  }
  const isNumber = (column) => found.length > 0 && typeof column[1](found[0]) === "number";
  columns.forEach((column, at) => {
    head.children[at].className = isNumber(column) ? "number" : "";
    head.children[at].ariaSort = by !== column[0] ? null : downwards ? "descending" : "ascending";
  });
  const body = rows.slice(0, MOST_ROWS).map((row) => node("tr", {class: bad(row) ? "bad" : null}, ...columns.map((column) =>
    node("td", {class: column[3] ?? (isNumber(column) ? "number" : null)}, (column[2] ?? column[1])(row)))));
  if (rows.length + more > MOST_ROWS)
    body.push(node("tr", {}, node("td", {colspan: columns.length}, `and ${rows.length + more - MOST_ROWS} more: search, or sort`)));
  if (!head.isConnected) {
    for (const part of [...made.children].slice(1)) part.remove();
    made.append(node("thead", {}, head), node("tbody"));
  }
  made.tBodies[0].replaceChildren(...body);
  made.hidden = found.length === 0;
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
  ], isBroken, state.more_edges);
  $("services-part").hidden = !state.mesh;
  $("links-part").hidden = !state.links?.length;
  $("hosts").querySelector("caption").textContent = state.mesh ? "Hosts of the mesh; those where something is wrong first, then the busiest" : "Hosts that this one knows";
  if (state.mesh) showMesh(); else showHost();
}

function showMesh() {
  table("services", state.services, [
    ["service", (service) => service.name],
    ["offered by", (service) => service.offered_by],
    ["hosts", (service) => service.hosts.join(", "), (service) =>
      service.hosts.join(", ") + (service.offered_by > service.hosts.length ? ` and ${service.offered_by - service.hosts.length} more` : "") || "no host", "why"],
    ["callers", (service) => service.callers],
    ["streams", (service) => service.streams],
    ["bytes/s", (service) => service.rate, (service) => bytes(service.rate)],
    ["failing edges", (service) => service.failing],
  ], (service) => service.failing > 0, state.more_services);
  table("hosts", state.hosts, [
    ["host", (host) => host.name],
    ["address", (host) => host.address],
    ["services", (host) => host.services],
    ["streams", (host) => host.streams],
    ["bytes/s", (host) => host.rate, (host) => bytes(host.rate)],
    ["failing edges", (host) => host.failing],
    ["problems told", (host) => host.problems],
    ["heard of", (host) => host.told_s ?? 1e9, (host) => host.told_s === null ? "not yet" : `${span(host.told_s)} ago`],
    ["version", (host) => host.version],
  ], (host) => host.failing + host.problems > 0, state.more_hosts);
  table("ejected", [], []);
}

function showHost() {
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
  ], (link) => link.suspended_s !== null, state.more_links);
  table("hosts", state.peers, [
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
  const more = [link.opened_why && `opened as ${link.opened_why}`, link.bulk && "set apart for heavy streams"].filter(Boolean);
  return [link.resumed ? `${why} (resumed ${link.resumed} times)` : why, ...more].join("; ");
}

function show() {
  if (state === null) return;
  $("host").textContent = title();
  $("summary").textContent = (state.mesh ? meshSummary() : hostSummary()).join(" · ");
  const edges = visible();
  showProblems(); showGraph(edges); showTables(edges);
}

function meshSummary() {
  return [
    `told by control server ${state.server}`, `version ${state.version}`, `up ${span(state.uptime_s)}`,
    `${state.all_hosts} hosts, ${state.all_services} services`, `${state.streams} streams open`, "hosts tell every few seconds, what is newly wrong within two",
  ];
}

function hostSummary() {
  const control = state.control === null ? "no control plane" : state.control.server === null
    ? "control plane not reached" : `control plane ${state.control.server}`;
  const sum = (found, of) => found.reduce((all, each) => all + of(each), 0);
  const waits = sum(state.links, (link) => link.suspended_s === null ? 0 : link.streams) + sum(state.peers, (peer) => peer.waiting);
  return [
    `version ${state.version}`, `up ${span(state.uptime_s)}`,
    `${state.streams} ${state.streams === 1 ? "stream" : "streams"} open${waits ? `, ${waits} of them waiting for a link` : ""}`, `${state.opened} opened so far, ${state.failed} failed`,
    `memory ${bytes(state.memory_used)} of ${bytes(state.memory_limit)}`, `${state.handshakes_avoided} handshakes avoided`, control,
    ...(state.draining ? ["draining: it takes no more calls"] : []),
  ];
}

function remember() {
  for (const edge of state.edges) {
    history.set(key(edge), [...history.get(key(edge)) ?? [], rate(edge)].slice(-HISTORY));
  }
  if (query()) return;
  const told = new Set(state.edges.map(key));
  for (const each of history.keys()) if (!told.has(each)) history.delete(each);
}

let waiting = null, asking = false;

async function ask() {
  asking = true;
  try {
    const answer = await fetch(`state.json?${query()}`, {signal: AbortSignal.timeout(PATIENCE), cache: "no-store"});
    if (!answer.ok) throw new Error(`answer ${answer.status}`);
    state = await answer.json();
    heard = Date.now() / 1000;
    $("stale").hidden = true;
    remember();
    show();
  } catch (error) {
    const since = heard === null ? "" : ` What is below is of ${clock(heard)}.`;
    $("stale").textContent = `This ${state?.mesh ? "control server" : "host"} does not answer (${error.message}).${since}`;
    $("stale").hidden = false;
  }
  asking = false;
  waiting = setTimeout(ask, EVERY);
}

function hurry() {  // something else is wanted: ask soon, once for several letters
  if (asking) return;
  clearTimeout(waiting);
  waiting = setTimeout(ask, EVERY / 4);
}

$("search").addEventListener("input", () => { show(); hurry(); });
$("clear").addEventListener("click", () => { chosen = null; $("search").value = ""; show(); hurry(); });
ask();
