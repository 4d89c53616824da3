// Chromium from a package that has all of it inside, with its libraries and a font: nothing of the machine's is asked for.
import { mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

/** Starts it; or the one at the path CHROMIUM, with the fonts of the machine. */
export async function launch() {
  // The package's own flags take the browser's safeguards away. Only its sandbox cannot be: root may not have one.
  const args = ["--headless=shell", "--no-sandbox", "--no-zygote", "--disable-gpu", "--font-render-hinting=none"];
  const start = (executablePath) => chromium.launch({ executablePath, args, ignoreDefaultArgs: ["--headless"] });
  if (process.env.CHROMIUM) return start(process.env.CHROMIUM);
  // The package unpacks into the folder for temporary files, by fixed names.
  process.env.TMPDIR = join(tmpdir(), `istio-ca-gate-page-${process.getuid()}`);
  mkdirSync(process.env.TMPDIR, { recursive: true, mode: 0o700 });
  // On the machines that it is made for it brings its libraries, too.
  process.env.AWS_EXECUTION_ENV ??= "AWS_Lambda_nodejs20.x";
  const { default: packaged } = await import("@sparticuz/chromium");
  packaged.setGraphicsMode = false;
  return start(await packaged.executablePath());
}
