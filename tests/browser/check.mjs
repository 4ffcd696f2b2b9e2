// Opens every page of the service in Chromium, in several states, and checks what a reader would meet: status, console
// errors, requests to other hosts, accessibility (axe-core), width, weight and the keyboard. With a folder for
// screenshots, a picture of each state is written there.
//
//     node check.mjs CONFIG.json      (scripts/browser_check.py writes the file)

import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

import { flows } from "./flows.mjs";

const config = JSON.parse(readFileSync(process.argv[2], "utf8"));
const require = createRequire(`${config.modules}/package.json`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// Limit of a page without its images, in bytes.
const MOST_BYTES = 150 * 1024;

const VIEWS = {
  desktop: { viewport: { width: 1440, height: 900 }, colorScheme: "light" },
  dark: { viewport: { width: 1440, height: 900 }, colorScheme: "dark" },
  phone: { viewport: { width: 375, height: 740 }, colorScheme: "light" },
  plain: { viewport: { width: 1440, height: 900 }, colorScheme: "light", javaScriptEnabled: false },
};

const problems = [];
let opened = 0;

const browser = await chromium.launch({
  executablePath: config.chromium,
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});

/** Opens a page of its own; `found` collects what went wrong, `weight` the bytes without images. */
async function open(service, view) {
  const headers = service.key ? { httpCredentials: { username: "browser", password: service.key, send: "always" } } : {};
  const context = await browser.newContext({ ...VIEWS[view], ...headers, reducedMotion: "reduce" });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  const found = [];
  const bodies = [];
  page.on("console", (message) => {
    // Chromium reports a missing page as an error of its own: its status is checked below.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) found.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => found.push(`script: ${error.message}`));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (!["data:", "blob:"].includes(url.protocol) && url.origin !== service.url) found.push(`foreign request: ${url.origin}`);
  });
  page.on("response", (response) => {
    const kind = response.headers()["content-type"] ?? "";
    if (kind.startsWith("text/event-stream")) return;
    if (response.status() >= 400 && response.request().resourceType() !== "document") found.push(`${response.status()} for ${response.url()}`);
    if (!kind.startsWith("image/") || kind.startsWith("image/svg")) {
      // As transferred, compressed.
      const size = response.request().sizes().then((sizes) => sizes.responseBodySize, () => 0);
      bodies.push(size);
    }
  });
  const weight = async () => (await Promise.all(bodies)).reduce((sum, bytes) => sum + bytes, 0);
  return { context, page, found, weight };
}

async function accessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `axe ${id}: ${nodes.slice(0, 2).map((node) => node.html.slice(0, 160)).join(" | ")} (${nodes.length})`);
}

/** What the page's own text and layout show to be wrong. */
function look() {
  const wrong = [];
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth + 1) {
    const wide = [...document.querySelectorAll("main *")].find((element) => !element.closest(".scroll, pre") && element.getBoundingClientRect().right > innerWidth + 1);
    wrong.push(`wider than the window by ${root.scrollWidth - innerWidth}: ${wide?.outerHTML.slice(0, 160)}`);
  }
  if (document.querySelectorAll("h1").length !== 1) wrong.push("not exactly one h1");
  if (document.querySelector("[style]:not(svg *)") && !document.querySelector("[style]").closest("svg")) wrong.push("an inline style");
  if (document.querySelector("[tabindex]:not([tabindex='0']):not([tabindex='-1'])")) wrong.push("a tabindex that changes the order");
  const text = document.body.innerText;
  for (const word of ["NaN", "undefined", "Some(", "None)", "Infinity"]) if (text.includes(word)) wrong.push(`the text has ${word}`);
  const images = [...document.images].filter((image) => image.complete && image.naturalWidth === 0 && image.loading !== "lazy");
  if (images.length) wrong.push(`broken image ${images[0].src}`);
  return wrong;
}

/** Presses Tab through the page: the focus must move on, be visible, and reach the content. */
async function keyboard(page) {
  const wrong = [];
  await page.keyboard.press("Tab");
  const first = await page.evaluate(() => document.activeElement?.className);
  if (first !== "skip") wrong.push(`the first stop of the keyboard is not the link to the content but ${first}`);
  const wanted = await page.evaluate(() => document.querySelectorAll("main a[href], main button:not([hidden]):not(:disabled), main input:not([hidden]):not([type=hidden]), main select, main textarea, main summary").length);
  const limit = Math.min(wanted + 40, 120);
  let reached = false;
  for (let stop = 0; stop < limit && !reached; stop += 1) {
    await page.keyboard.press("Tab");
    reached = await page.evaluate(() => Boolean(document.activeElement?.closest("main")));
  }
  if (wanted > 0 && !reached) wrong.push("the keyboard does not reach the content");
  return wrong;
}

/** Requests a page as a browser without a key would: it would ask for one, so that no page is shown to be checked. */
async function refused(service, { name, path, status }) {
  const context = await browser.newContext();
  const response = await context.request.get(service.url + path, { headers: { accept: "text/html" } });
  const where = `${service.name} ${name} ${path}`;
  if (response.status() !== status) problems.push(`${where}: status ${response.status()}, not ${status}`);
  if (!(response.headers()["www-authenticate"] ?? "").includes("Basic")) problems.push(`${where}: no challenge`);
  opened += 1;
  await context.close();
}

async function check(service, { name, path, status = 200 }, view) {
  if (status === 401) return refused(service, { name, path, status });
  const { context, page, found, weight } = await open(service, view);
  const where = `${service.name} ${name} (${view}) ${path}`;
  try {
    const response = await page.goto(service.url + path, { waitUntil: "load" });
    opened += 1;
    if (response.status() !== status) found.push(`status ${response.status()}, not ${status}`);
    const policy = response.headers()["content-security-policy"] ?? "";
    if (!policy.includes("default-src 'none'") || policy.includes("unsafe")) found.push(`policy: ${policy}`);
    found.push(...(await page.evaluate(look)));
    const bytes = await weight();
    if (bytes > MOST_BYTES) found.push(`${Math.round(bytes / 1024)} KiB without images`);
    if (config.screenshots) {
      mkdirSync(config.screenshots, { recursive: true });
      // Images below the fold are loaded late.
      await page.evaluate(async () => {
        for (const image of document.images) image.loading = "eager";
        await Promise.allSettled([...document.images].map((image) => image.decode()));
      });
      await page.screenshot({ path: join(config.screenshots, `${service.name}-${name}-${view}.png`), fullPage: view !== "phone" });
    }
    if (VIEWS[view].javaScriptEnabled !== false) {
      found.push(...(await accessible(page)));
      if (view === "desktop") found.push(...(await keyboard(page)));
    }
  } catch (error) {
    found.push(String(error).split("\n")[0]);
  }
  await context.close();
  problems.push(...found.map((what) => `${where}: ${what}`));
}

for (const service of config.services) {
  const jobs = service.pages.flatMap((page) => (page.views ?? service.views).map((view) => [page, view]));
  // Two at a time: a page waits for the service as long as for the browser.
  await Promise.all([0, 1].map(async (lane) => {
    for (const [page, view] of jobs.filter((_, at) => at % 2 === lane)) await check(service, page, view);
  }));
}
const visits = Object.entries(flows).filter(([name]) => name.includes(config.only));
for (const [name, flow] of visits) {
  const service = config.services.find((each) => each.name === (flow.service ?? "data"));
  const { context, page, found } = await open(service, "desktop");
  try {
    await flow.run(page, service, config);
  } catch (error) {
    found.push(String(error.stack ?? error).split("\n").slice(0, 6).join(" "));
    if (config.screenshots) await page.screenshot({ path: join(config.screenshots, `failed-${name}.png`) });
  }
  await context.close();
  problems.push(...found.map((what) => `flow ${name}: ${what}`));
}
await browser.close();
if (problems.length) {
  console.log(problems.join("\n"));
  process.exit(1);
}
console.log(`${opened} states of pages and ${visits.length} visits passed`);
