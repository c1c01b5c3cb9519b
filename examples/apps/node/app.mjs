// Answers a POST when it has the whole body, and a GET at once. leaving.mjs has
// what it needs for a drain.
import cluster from 'node:cluster';
import { createServer } from 'node:http';
import process from 'node:process';
import { countWorkers, leaving } from './leaving.mjs';

if (cluster.isPrimary) {
  countWorkers();
  for (let n = 0; n < 2; n++) cluster.fork();
  let stopping = false;
  cluster.on('exit', () => stopping || cluster.fork());
  process.once('SIGTERM', () => {
    stopping = true;
    for (const worker of Object.values(cluster.workers)) worker.process.kill();
  });
} else {
  const work = leaving(async (request, response) => {
    let n = 0;
    try {
      for await (const part of request) n += part.length;
    } catch {
      return; // the client is gone
    }
    // The worker's process, to show which worker has answered.
    response.end(`${n} bytes, worker ${process.pid}\n`);
  });
  createServer((request, response) => {
    if (request.url === '/ready') response.end('ok\n'); // not counted as work
    else work(request, response);
  }).listen(process.env.PORT);
}
