// The page as people see it: in a browser, light and dark, on a phone, by keyboard, and to a reader of screens.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { AxeBuilder } from "@axe-core/playwright";
import { launch } from "./browser.mjs";
import { Sandbox } from "./sandbox.mjs";

/** Where the pictures go. */
const PICTURES = process.env.PICTURES;

/** The NAS is held, its roots differ, and a pod waits. */
const TROUBLE = "Not all clusters have the same root.";

/** Between two rounds of a gate's questions to its peers, with room. */
const SOON = 30_000;

let browser, sandbox;

before(async () => {
  [browser, sandbox] = await Promise.all([launch(), Sandbox.start()]);
  if (PICTURES) mkdirSync(PICTURES, { recursive: true });
});

after(async () => {
  await browser?.close();
  await sandbox?.end();
});

/** A tab, with all that a browser complains about. */
async function tab(scheme, width) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height: 900 } });
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (message) => message.type() === "error" && page.complaints.push(message.text()));
  page.on("pageerror", (error) => page.complaints.push(error.message));
  return page;
}

/** Looks again until the page says it. */
async function says(page, url, text) {
  const until = Date.now() + SOON;
  do {
    await page.goto(url);
    if ((await page.locator("main").innerText()).includes(text)) return;
  } while (Date.now() < until);
  assert.fail(`no ${text} in ${await page.locator("body").innerText()}`);
}

/** Nothing that axe finds, nothing that the browser complains about, nothing wider than the window. */
async function isSound(page, name) {
  if (PICTURES) await page.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true });
  const { violations, passes } = await new AxeBuilder({ page }).analyze();
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], name);
  assert.ok(passes.length > 10, `axe looked at ${passes.length} rules`);
  const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(inner <= outer, `${name}: ${inner} px wide in ${outer}`);
  assert.deepEqual(page.complaints, [], name);
}

/** Every width and scheme. */
async function isSoundEverywhere(url, text, name) {
  for (const scheme of ["light", "dark"]) {
    for (const [kind, width] of [["wide", 1000], ["phone", 375]]) {
      const page = await tab(scheme, width);
      await says(page, url, text);
      await isSound(page, `${name}-${scheme}-${kind}`);
      await page.context().close();
    }
  }
}

test("all is well, and everybody can read it, wide and on a phone, light and dark", async () => {
  await isSoundEverywhere(sandbox.pages[1], "All 2 clusters have one root.", "well");
});

test("what a code means can be read, too", async () => {
  await isSoundEverywhere(`${sandbox.pages[1]}reasons/RootChanged`, "root", "reason");
});

test("the page stands still, so that a selection stays, and loads itself anew only where that is asked for", async () => {
  const page = await tab("light", 1000);
  let loads = 0;
  page.on("load", () => (loads += 1));
  await page.goto(sandbox.pages[1]);
  await page.locator("code").first().selectText();
  const anew = await tab("light", 1000);
  await anew.goto(sandbox.pages[1]);
  await anew.getByRole("link", { name: "look again every 15 seconds" }).click();
  await anew.waitForURL(/\?reload$/);
  await anew.waitForEvent("load", { timeout: SOON });
  // In that time the other has not.
  assert.equal(loads, 1);
  assert.match(await page.evaluate(() => getSelection().toString()), /^[0-9A-F:\s]{95,}/);
  await Promise.all([page.context().close(), anew.context().close()]);
});

test("the cluster that differs is on top, with what it says in full, and the one that waits is named", async () => {
  await sandbox.type("vault sealed", "nas is ");
  const foreign = sandbox.file("gate-ca.pem").toString("base64");
  await sandbox.ask("nas", "PATCH", "/secrets/cacerts", { data: { "root-cert.pem": foreign } });
  const { items } = await sandbox.ask("nas", "GET", "/pods?labelSelector=app%3Distiod");
  for (const { metadata } of items) await sandbox.ask("nas", "DELETE", `/pods/${metadata.name}`);
  const [homelab, nas] = sandbox.pages;
  const page = await tab("light", 1000);
  await says(page, nas, "ReplicaSet istio-system/istiod-");
  assert.match(await page.locator("main").innerText(), /Held since\s+\d{4}-/);
  await says(page, homelab, TROUBLE);
  const first = page.locator(".clusters tbody tr").first();
  assert.match(await first.innerText(), /^nas\n[^]*differs[^]*VaultSealed: cluster nas: [^]*: unseal it/);
  assert.match(await page.locator("h2").first().innerText(), new RegExp(TROUBLE));
  await isSoundEverywhere(nas, TROUBLE, "trouble-nas");
  await isSoundEverywhere(homelab, TROUBLE, "trouble-homelab");
  await page.context().close();
});

test("by keyboard alone every link is reached, seen and followed", async () => {
  const page = await tab("dark", 1000);
  await page.goto(sandbox.pages[1]);
  const links = await page.locator("a").evaluateAll((all) => all.map((link) => link.getAttribute("href")));
  assert.ok(links.includes("/reasons/VaultSealed") && links.includes("/fingerprint"), `${links}`);
  for (const link of links) {
    await page.keyboard.press("Tab");
    const [href, width, style] = await page.evaluate(() => {
      const { outlineWidth, outlineStyle } = getComputedStyle(document.activeElement);
      return [document.activeElement.getAttribute("href"), parseFloat(outlineWidth), outlineStyle];
    });
    assert.deepEqual([href, width >= 2, style], [link, true, "solid"]);
  }
  await page.locator("a[href='/reasons/VaultSealed']").first().focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/reasons\/VaultSealed$/);
  assert.equal(await page.locator("h1").innerText(), "VaultSealed");
  await page.context().close();
});
