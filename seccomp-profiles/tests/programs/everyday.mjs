// What Node.js programs do every day.

import assert from 'node:assert/strict';
import { exec, fork, spawn } from 'node:child_process';
import cluster from 'node:cluster';
import crypto from 'node:crypto';
import dns from 'node:dns/promises';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import zlib from 'node:zlib';

const file = fileURLToPath(import.meta.url);

async function threads() {
  const shared = new SharedArrayBuffer(4);
  const workers = [1, 2, 3, 4].map((number) => new Worker(file, { workerData: { number, shared } }));
  const answers = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]));
  assert.deepEqual(answers.sort((a, b) => a - b), [1, 4, 9, 16]);
  assert.equal(Atomics.load(new Int32Array(shared), 0), 4);
}

async function children() {
  assert.equal((await promisify(exec)('echo hello')).stdout, 'hello\n');
  const sleeper = spawn('sleep', ['60'], { detached: true });
  process.kill(-sleeper.pid, 'SIGTERM');
  assert.equal((await once(sleeper, 'exit'))[1], 'SIGTERM');
  const child = fork(file, ['child']);
  child.send('question');
  assert.equal((await once(child, 'message'))[0], 'answer to question');
  await once(child, 'exit');
}

async function pool() {
  const derived = await Promise.all(
    [1, 2, 3, 4, 5, 6, 7, 8].map((salt) => promisify(crypto.pbkdf2)('password', `${salt}`, 1000, 32, 'sha256')),
  );
  assert.equal(derived.length, 8);
  assert.equal((await promisify(zlib.gunzip)(await promisify(zlib.gzip)('text'))).toString(), 'text');
  assert.equal((await dns.lookup('127.0.0.1')).address, '127.0.0.1');
}

async function network() {
  const echo = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(echo, 'listening');
  const client = net.connect(echo.address().port, '127.0.0.1');
  client.write('there and back');
  assert.equal((await once(client, 'data'))[0].toString(), 'there and back');
  client.end();
  await once(client, 'close');
  echo.close();
  const server = http.createServer((_, response) => response.end('page')).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/`);
  assert.equal(await answer.text(), 'page');
  server.closeAllConnections();
  server.close();
  assert.ok(os.networkInterfaces());
}

async function files() {
  const folder = await fs.promises.mkdtemp(path.join(os.tmpdir(), 'everyday-'));
  const watched = fs.watch(folder);
  const change = once(watched, 'change');
  const name = path.join(folder, 'file');
  await fs.promises.writeFile(name, 'x'.repeat(100_000));
  await change;
  watched.close();
  await fs.promises.copyFile(name, `${name}2`);
  await pipeline(fs.createReadStream(name), fs.createWriteStream(`${name}3`));
  assert.equal((await fs.promises.stat(`${name}3`)).size, 100_000);
  await fs.promises.rename(`${name}3`, `${name}4`);
  await fs.promises.symlink(name, `${name}5`);
  await fs.promises.chmod(name, 0o600);
  assert.deepEqual((await fs.promises.readdir(folder)).sort(), ['file', 'file2', 'file4', 'file5']);
  await fs.promises.rm(folder, { recursive: true });
}

async function compiled() {
  // (module (func (export "f") (param i32) (result i32) local.get 0 i32.const 1 i32.add))
  const bytes = Uint8Array.of(
    0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0, 10, 9, 1, 7, 0, 32, 0,
    65, 1, 106, 11,
  );
  const { instance } = await WebAssembly.instantiate(bytes);
  let sum = 0;
  for (let i = 0; i < 1_000_000; i += 1) sum = instance.exports.f(sum);
  assert.equal(sum, 1_000_000);
}

async function processes() {
  cluster.setupPrimary({ exec: file, args: ['cluster'] });
  const worker = cluster.fork();
  assert.equal((await once(worker, 'message'))[0], 'in the cluster');
  worker.kill();
  await once(worker, 'exit');
}

if (!isMainThread) {
  Atomics.add(new Int32Array(workerData.shared), 0, 1);
  parentPort.postMessage(workerData.number ** 2);
} else if (process.argv[2] === 'child') {
  process.once('message', (message) => {
    process.send(`answer to ${message}`, () => process.disconnect());
  });
} else if (process.argv[2] === 'cluster') {
  process.send('in the cluster');
} else {
  await threads();
  await children();
  await pool();
  await network();
  await files();
  await compiled();
  await processes();
  console.log('all done');
}
