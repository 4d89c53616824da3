// The tour, run to its end and kept up: two clusters, each with a gate and its page.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { once } from "node:events";
import https from "node:https";

const END = "quit, or Ctrl-C: ends it";
/** As it was before the browser's libraries were named in it. */
const ENVIRONMENT = { ...process.env };

const NAMESPACE = "/api/v1/namespaces/istio-system";

export class Sandbox {
  #process;
  #said = "";
  #heard = () => {};

  /** Starts it, and waits for the end of the tour. */
  static async start() {
    const sandbox = new Sandbox();
    const path = process.env.SANDBOX;
    if (!path) throw new Error("SANDBOX has to be the path of the sandbox's program: run ./test page");
    sandbox.#process = spawn(path, { env: ENVIRONMENT, stdio: ["pipe", "pipe", "inherit"] });
    const stdout = sandbox.#process.stdout.setEncoding("utf8");
    stdout.on("data", (text) => {
      sandbox.#said += text;
      sandbox.#heard();
    });
    stdout.on("end", () => sandbox.#heard());
    await sandbox.#says(END);
    return sandbox;
  }

  async #says(text, from = 0) {
    while (!this.#said.slice(from).includes(text)) {
      if (this.#process.stdout.readableEnded) throw new Error(`the sandbox has ended: ${this.#said}`);
      await new Promise((heard) => (this.#heard = heard));
    }
  }

  /** The addresses of the pages: of the homelab, and of the NAS. */
  get pages() {
    return this.#said.match(/http:\/\/127\.0\.0\.1:\d+\/(?=\n)/g);
  }

  /** Types a line, and waits until it is done. */
  async type(line, done) {
    const from = this.#said.length;
    this.#process.stdin.write(`${line}\n`);
    await this.#says(done, from);
  }

  /** Asks the API server of a cluster, with all rights. */
  async ask(cluster, method, path, body) {
    const kubeconfig = JSON.parse(readFileSync(this.#env("KUBECONFIG"), "utf8"));
    const of = (list) => kubeconfig[list].find(({ name }) => name === cluster);
    const { server, "certificate-authority-data": ca } = of("clusters").cluster;
    const type = method === "PATCH" ? "application/merge-patch+json" : "application/json";
    const headers = { authorization: `Bearer ${of("users").user.token}`, "content-type": type };
    const request = https.request(server + NAMESPACE + path, { method, headers, ca: Buffer.from(ca, "base64") });
    request.end(body && JSON.stringify(body));
    const [answer] = await once(request, "response");
    let text = "";
    for await (const part of answer) text += part;
    if (answer.statusCode >= 300) throw new Error(`${method} ${path}: ${answer.statusCode}: ${text}`);
    return JSON.parse(text);
  }

  /** A variable that the printed commands have. */
  #env(name) {
    const file = this.#said.match(/^ {5}\. (\/\S+)$/m)[1];
    return readFileSync(file, "utf8").match(new RegExp(`^export ${name}="(.*)"$`, "m"))[1];
  }

  /** A file that is written for the printed commands. */
  file(name) {
    return readFileSync(`${this.#env("SANDBOX")}/${name}`);
  }

  async end() {
    const ended = once(this.#process, "exit");
    this.#process.stdin.write("quit\n");
    const [code] = await ended;
    if (code !== 0) throw new Error(`it ended with ${code}: ${this.#said}`);
  }
}
