// The order of the elements is: a frame, then what lies on it.
const frames = Array.from(document.querySelectorAll(".frame"), (element) => ({
  element,
  name: element.dataset.name,
  start: Number(element.dataset.start),
  end: Number(element.dataset.start) + Number(element.dataset.total),
  y: Number(element.querySelector("rect").getAttribute("y")),
  title: element.querySelector("title").textContent,
  rect: element.querySelector("rect"),
  text: element.querySelector("text"),
}));
const byId = (id) => document.getElementById(id);
let shown = frames[0];

function label(name, width) {
  const room = Math.max(0, Math.floor((width - 6) / CHARACTER));
  if (name.length <= room) return name;
  return room < 3 ? "" : name.slice(0, room - 2) + "..";
}

// Gives the whole width to a frame, and with it to its callers, which are greyed.
function zoom(to) {
  shown = to;
  const scale = (WIDTH - 2 * MARGIN) / (to.end - to.start);
  for (const frame of frames) {
    const from = Math.max(frame.start, to.start), until = Math.min(frame.end, to.end);
    const under = frame.y > to.y;
    frame.element.classList.toggle("hidden", until <= from || (under ? frame.end < to.end : false));
    frame.element.classList.toggle("under", under);
    const x = MARGIN + (from - to.start) * scale, width = Math.max(0, until - from) * scale;
    frame.rect.setAttribute("x", x.toFixed(2));
    frame.rect.setAttribute("width", width.toFixed(2));
    frame.text.setAttribute("x", (x + 3).toFixed(2));
    frame.text.textContent = label(frame.name, width);
  }
  byId("reset").classList.toggle("hidden", to === frames[0]);
}

// Marks the frames whose names match, and says how much time is in them: each millisecond once.
function search(pattern) {
  let matches = () => false;
  if (pattern !== "") {
    try {
      const expression = new RegExp(pattern);
      matches = (name) => expression.test(name);
    } catch {
      // While it is being typed an expression may be incomplete; it is a plain text then.
      matches = (name) => name.includes(pattern);
    }
  }
  let found = 0, counted = -1;
  for (const frame of frames) {
    const hit = matches(frame.name);
    frame.element.classList.toggle("found", hit);
    if (hit && frame.start >= counted) {
      found += frame.end - frame.start;
      counted = frame.end;
    }
  }
  const all = frames[0].end - frames[0].start;
  byId("matched").textContent = pattern === "" ? "" : `matched ${((100 * found) / all).toFixed(1)}%`;
}

for (const frame of frames) {
  frame.element.addEventListener("click", () => zoom(frame));
  frame.element.addEventListener("mouseover", () => { byId("details").textContent = frame.title; });
  frame.element.addEventListener("mouseout", () => { byId("details").textContent = ""; });
}
byId("reset").addEventListener("click", () => zoom(frames[0]));
byId("search").addEventListener("input", (event) => search(event.target.value));
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "f") {
    event.preventDefault();
    byId("search").focus();
  } else if (event.key === "Escape") {
    byId("search").value = "";
    search("");
    zoom(frames[0]);
  }
});
