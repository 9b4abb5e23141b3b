// Opens pages in a browser as readers do, and checks them.
//
// Usage: node pages.mjs CHROMIUM SCREENSHOTS PAGE...
//
// Each page is opened light and dark, 1280 and 390 pixels wide, and without JavaScript. A page fails if it
// writes to the console, asks the network for anything, is wider than the screen, breaks a rule of axe, if a
// chart does not tell values by pointer and by keyboard, or if a table cannot be sorted.
import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [executablePath, screenshots, ...pages] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const OPTIONS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];
const wrong = [];
if (screenshots) mkdirSync(screenshots, { recursive: true });

const browser = await chromium.launch({ executablePath, headless: true, args: OPTIONS });
for (const path of pages) {
  const url = pathToFileURL(resolve(path)).href;
  const name = `${basename(dirname(resolve(path)))}-${basename(path, ".html")}`;
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      await look(url, `${name} ${colorScheme} ${width}`, { colorScheme, viewport: { width, height: 900 } });
    }
  }
  await lookWithoutScript(url, `${name} without JavaScript`);
}
await browser.close();
for (const line of wrong) console.log(line);
console.log(`${pages.length} pages, ${wrong.length} findings`);
process.exit(wrong.length ? 1 : 0);

async function open(url, where, settings) {
  const context = await browser.newContext({ ...settings, reducedMotion: "reduce" });
  const page = await context.newPage();
  page.on("console", (message) => wrong.push(`${where}: console: ${message.text()}`));
  page.on("pageerror", (error) => wrong.push(`${where}: error: ${error.message}`));
  page.on("request", (request) => {
    if (request.url() !== url && !request.url().startsWith("data:")) wrong.push(`${where}: request: ${request.url()}`);
  });
  page.on("dialog", (dialog) => { wrong.push(`${where}: dialog: ${dialog.message()}`); dialog.dismiss(); });
  await page.goto(url);
  return { context, page };
}

async function look(url, where, settings) {
  const { context, page } = await open(url, where, settings);
  if (screenshots) {
    await page.screenshot({ path: join(screenshots, `${where.replaceAll(" ", "-")}.png`), fullPage: true });
  }
  await checkWidth(page, where);
  await page.evaluate(axe);
  // Tables and settings that are folded are read by somebody too.
  await page.evaluate(() => { for (const one of document.querySelectorAll("details")) one.open = true; });
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  for (const one of found.violations) {
    for (const node of one.nodes.slice(0, 3)) {
      wrong.push(`${where}: axe ${one.id}: ${node.target.join(" ")}: ${node.failureSummary.replaceAll("\n", " ")}`);
    }
  }
  await checkWidth(page, `${where}, unfolded`);
  if (settings.viewport.width > 1000) {
    await checkCharts(page, where);
    await checkTables(page, where);
    await checkTheme(page, where);
  }
  await context.close();
}

async function lookWithoutScript(url, where) {
  const { context, page } = await open(url, where, { javaScriptEnabled: false, viewport: { width: 390, height: 900 } });
  const parts = await page.locator("svg[role=img], table").count();
  if (!parts) wrong.push(`${where}: no chart and no table`);
  if (await page.locator("button:visible").count()) wrong.push(`${where}: a button that does nothing`);
  await context.close();
}

async function checkWidth(page, where) {
  const [held, shown] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  if (held > shown) wrong.push(`${where}: ${held} pixels wide on a screen of ${shown}`);
}

async function checkCharts(page, where) {
  for (const plot of await page.locator(".plot").all()) {
    const title = await plot.getAttribute("data-title");
    const reading = plot.locator("xpath=ancestor::figure").locator(".reading");
    await plot.scrollIntoViewIfNeeded();
    const box = await plot.boundingBox();
    const hint = await reading.textContent();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 3);
    if ((await reading.textContent()) === hint) wrong.push(`${where}: ${title}: the pointer shows nothing`);
    await page.mouse.move(0, 0);
    await plot.focus();
    await page.keyboard.press("Home");
    const first = await plot.getAttribute("aria-valuetext");
    await page.keyboard.press("ArrowRight");
    const second = await plot.getAttribute("aria-valuetext");
    const several = Number(await plot.getAttribute("aria-valuemax")) > 1;
    if (several && first === second) wrong.push(`${where}: ${title}: the arrow keys change nothing`);
    await plot.blur();
  }
}

async function checkTables(page, where) {
  for (const table of await page.locator("table").all()) {
    const button = table.locator("thead button").last();
    if (!(await button.count())) continue;
    const column = await button.evaluate((one) => one.closest("th").cellIndex);
    const cells = () => table.evaluate((one, at) => [...one.tBodies[0].rows].map((row) => row.cells[at].textContent), column);
    await button.click();
    const up = await cells();
    await button.click();
    const down = await cells();
    const told = new Set(up.filter((text) => text !== "-" && text !== ""));
    if (told.size > 1 && up.join() === down.join()) wrong.push(`${where}: a table is not sorted: ${up[0]}`);
    if ((await table.locator("[aria-sort=descending]").count()) !== 1) wrong.push(`${where}: a table does not say how it is sorted`);
  }
}

async function checkTheme(page, where) {
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.locator(".theme button", { hasText: "Light" }).click();
  const light = await ground();
  await page.locator(".theme button", { hasText: "Dark" }).click();
  if ((await ground()) === light) wrong.push(`${where}: the switch of colours changes nothing`);
}
