// Lets an app's clients leave while its pod drains, and tells Lastcall how many
// requests the app works on. With cluster, each worker has a file of its own.
import cluster from 'node:cluster';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';

const draining = process.env.LASTCALL_DRAINING_FILE;
const folder = process.env.LASTCALL_FILE_PATH;

/** Wrap the listener that does the app's work in it, and leave out what is asked by probes. */
export function leaving(listener) {
  add(0); // zero is said too: without a file the number is not known
  return (request, response) => {
    add(1);
    response.once('close', () => add(-1)); // sent, or the client has gone
    const writeHead = response.writeHead;
    response.writeHead = (...args) => {
      // A system call of a few microseconds, so it is asked each time.
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
  // What workers of an earlier life have left is no work.
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
  // When a worker has ended, however it did, its work has too.
  cluster.on('exit', (worker) => rmSync(file(worker.process.pid), { force: true }));
}

let inFlight = 0;

function add(n) {
  inFlight += n;
  if (!folder) return;
  // Whole, under another name first: a reader sees the old number or the new one.
  const next = join(folder, `.${process.pid}.tmp`);
  writeFileSync(next, `${inFlight}\n`);
  renameSync(next, file(process.pid));
}

function file(pid) {
  return join(folder, String(pid));
}
