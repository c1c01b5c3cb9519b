// Asks an app's clients to disconnect while its pod drains, and reports to Lastcall
// how many requests the app is handling. With cluster, each worker has its own
// file.
import cluster from 'node:cluster';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';

const draining = process.env.LASTCALL_DRAINING_FILE;
const folder = process.env.LASTCALL_FILE_PATH;

/** Wrap the listener of the app's work in it, but not the endpoints of probes. */
export function leaving(listener) {
  add(0); // write zero too: without a file the number is unknown
  return (request, response) => {
    add(1);
    response.once('close', () => add(-1)); // the answer was sent, or the client is gone
    const writeHead = response.writeHead;
    response.writeHead = (...args) => {
      // This takes a few microseconds, so it can be checked for each answer.
      if (draining && existsSync(draining)) response.setHeader('Connection', 'close');
      return writeHead.apply(response, args);
    };
    return listener(request, response);
  };
}

/** Call it in the primary, before it forks. */
export function countWorkers() {
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  // Files of workers of an earlier run are not work in flight.
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
  // When a worker has ended for any reason, its work has ended too.
  cluster.on('exit', (worker) => rmSync(file(worker.process.pid), { force: true }));
}

let inFlight = 0;

function add(n) {
  inFlight += n;
  if (!folder) return;
  // Replaced atomically: a reader sees either the old or the new number.
  const next = join(folder, `.${process.pid}.tmp`);
  writeFileSync(next, `${inFlight}\n`);
  renameSync(next, file(process.pid));
}

function file(pid) {
  return join(folder, String(pid));
}
