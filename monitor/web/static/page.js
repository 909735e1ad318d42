// Keeps an open page true: what the server says has changed is asked for anew, and only what differs is replaced.
// The page is whole without this.
"use strict";

const main = document.getElementById("main");
const news = document.getElementById("news");
const live = document.getElementById("live");
const EVERY = 30_000; // times go on, even where no status changes
const APART = 3_000; // between two looks
const SPREAD = 1_000; // many open pages do not ask in one instant

let seen = Number(main.dataset.seen);
let last = Date.now();
let planned = 0;
let looking = false;
let told = 0; // when the newest change was that has been told since the last look began
let source = null;

function differs(now, then) {
  return now.outerHTML !== then.outerHTML;
}

function keyOf(row) {
  const link = row.querySelector("th a");
  return link ? link.getAttribute("href") : null;
}

// Rows that stay are kept where they are equal, so that neither the focus nor a selection is lost for nothing.
function replaceRows(now, then) {
  const kept = new Map(Array.from(now.rows, (row) => [keyOf(row), row]));
  const rows = Array.from(then.rows, (row) => {
    const old = kept.get(keyOf(row));
    if (old && !differs(old, row)) return old;
    const fresh = document.importNode(row, true);
    const before = old && old.querySelector(".status");
    if (!before || before.textContent !== fresh.querySelector(".status")?.textContent) fresh.classList.add("changed");
    return fresh;
  });
  now.replaceChildren(...rows);
}

function replacePart(now, then) {
  if (!differs(now, then)) return;
  const focused = document.activeElement && now.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const body = now.querySelector("tbody");
  const others = then.querySelector("tbody");
  if (now.id === "connections" && body && others) {
    replaceRows(body, others);
    now.querySelector("caption").textContent = then.querySelector("caption").textContent;
    const pages = now.querySelector(".pages");
    const turned = then.querySelector(".pages");
    if (pages) pages.remove();
    if (turned) now.append(document.importNode(turned, true));
  } else {
    now.replaceChildren(...document.importNode(then, true).childNodes);
    now.className = then.className;
  }
  if (focused) Array.from(now.querySelectorAll("a")).find((link) => link.getAttribute("href") === focused)?.focus();
}

// One at a time: a monitor that is slow to answer is not asked the more, and no older answer comes after a newer one.
async function look() {
  planned = 0;
  told = 0;
  last = Date.now();
  looking = true;
  try {
    await show();
  } finally {
    looking = false;
  }
  if (told > seen) plan(true);
}

async function show() {
  let answer;
  try {
    answer = await fetch(location.href, { cache: "no-store" });
  } catch {
    lost();
    return;
  }
  if (!answer.ok) {
    lost(`The monitor does not show this page now (${answer.status})`);
    return;
  }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("main");
  if (!fresh || !live || live.dataset.paused) return;
  found();
  seen = Number(fresh.dataset.seen);
  for (const part of document.querySelectorAll("[data-live]")) {
    const then = page.getElementById(part.id);
    if (then) replacePart(part, then);
  }
  document.title = page.title;
}

function plan(soon) {
  if (planned || looking || live.dataset.paused) return;
  const wait = Math.max(last + APART - Date.now(), 0) + (soon ? Math.random() * SPREAD : 0);
  planned = setTimeout(look, wait);
}

function lost(why = "The monitor does not answer") {
  if (!live.dataset.paused) news.textContent = `${why}; what is shown may be old.`;
}

// A stream that was refused, as where too many pages are open or a proxy has lost the monitor, is asked for again.
function found() {
  if (news.textContent.startsWith("The monitor")) news.textContent = "";
  if (source.readyState === EventSource.CLOSED) connect();
}

function changed(at) {
  told = Math.max(told, at);
  if (told > seen) plan(true);
}

function connect() {
  source = new EventSource("/events");
  source.addEventListener("hello", (event) => changed(Number(event.data)));
  source.addEventListener("changed", (event) => {
    const change = JSON.parse(event.data);
    news.textContent = change.told;
    changed(change.at);
  });
}

function pause() {
  if (live.dataset.paused) {
    delete live.dataset.paused;
    live.textContent = "Pause";
    news.textContent = "";
    connect();
    plan(false);
  } else {
    live.dataset.paused = "yes";
    live.textContent = "Go on";
    news.textContent = "Paused: what is shown stays as it is.";
    clearTimeout(planned);
    planned = 0;
    source.close();
  }
}

if (main.querySelector("[data-live]")) {
  live.hidden = false;
  document.getElementById("reload").hidden = true;
  live.addEventListener("click", pause);
  connect();
  setInterval(() => {
    if (!document.hidden && Date.now() - last >= EVERY) plan(false);
  }, 1_000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && Date.now() - last >= EVERY) plan(false);
  });
}
