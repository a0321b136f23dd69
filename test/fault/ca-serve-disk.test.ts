import { mkdirSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect } from '@jest/globals';
import { createToken, serveCa } from '../support/ca-daemon';
import { type CaTestClient, createCaTestClient, makeRequest } from '../support/ca-server';
import { fetchText } from '../support/fetch-text';
import { testWhere } from '../support/peers';
import { mayMount, mountSmallDisk, type SmallDisk } from '../support/small-disk';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

const ID = 'spiffe://example.org/m';
const UNAVAILABLE = 14;

const open: { close(): void }[] = [];
afterEach(() => {
  for (const each of open.splice(0).reverse()) each.close();
});

const test = testWhere(mayMount(), 'a small file system (B2)', 'root, or CAP_SYS_ADMIN');

/** An authority with what is named on a disk that can be filled. */
async function start(onDisk: 'audit log' | 'register') {
  const dir = tempDir();
  const disk: SmallDisk = mountSmallDisk(512, join(dir, onDisk === 'register' ? 'ca' : 'log'));
  open.push(disk);
  mkdirSync(join(dir, 'log'), { recursive: true });
  const { daemon, address, admin } = await serveCa(dir, '--audit-log', './log/audit.jsonl');
  const roots = await readFile(join(dir, 'ca/root-cert.pem'));
  const ask = async (token: string) => {
    const client: CaTestClient = createCaTestClient(address, roots);
    open.push(client);
    return (await client.create((await makeRequest(ID)).csrDer, { token })).code;
  };
  const readiness = () => fetchText(`http://${admin}/healthz/ready`);
  return { disk, daemon, ask, readiness };
}

test.each<'audit log' | 'register'>(['audit log', 'register'])(
  'field B2, B5 a full disk under the %s costs no token, and ca serve is ready again by itself once there is room',
  async (what) => {
    const { disk, daemon, ask, readiness } = await start(what);
    const token = await createToken(daemon, ID);
    disk.fill();
    expect(await ask(token)).toBe(UNAVAILABLE);
    await until('the reason', async () => {
      const { status, body } = await readiness();
      return status === 503 && body.includes('ENOSPC');
    });
    expect(await ask(token)).toBe(UNAVAILABLE);
    disk.free();
    await until('readiness, without a request', async () => (await readiness()).status === 200);
    // With another key: it was not bound.
    expect(await ask(token)).toBe(0);
  },
);
