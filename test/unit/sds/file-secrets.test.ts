import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { certificatesPem } from '../../../agent/identity/certificate';
import { privateKeyPem } from '../../../agent/identity/keys';
import { createTrustBundle } from '../../../agent/identity/trust-bundle';
import { LIMITS } from '../../../sds/grpc/limits';
import { HOUR_MS, makeKey, makeTestCa, type TestCa } from '../../support/certs';
import type { SotwClientStream } from '../../support/sds-client';
import { issueCa, issueSvid, type SdsWorld, startSdsWorld } from '../../support/sds-world';
import { tempDir } from '../../support/temp-dir';

let dir: string;
let world: SdsWorld;
beforeEach(async () => {
  dir = tempDir();
  world = await startSdsWorld(tempDir(), { fileDirs: [dir] });
});
afterEach(() => world.close());

interface Pair {
  readonly serial: string;
  readonly chain: Buffer;
  readonly key: Buffer;
  readonly roots: Buffer;
}

async function makePair(): Promise<Pair> {
  const svid = await issueSvid(world.ca);
  return {
    serial: svid.serial,
    chain: certificatesPem(svid.chainDer),
    key: privateKeyPem(svid.key, 'pkcs8'),
    roots: certificatesPem(svid.bundle.rootsDer),
  };
}

/** Writes a file as those do who care: beside it, then renamed over it. */
function replace(path: string, bytes: Uint8Array | string): void {
  writeFileSync(`${path}.new`, bytes);
  renameSync(`${path}.new`, path);
}

/** `cert.pem`, `key.pem`, `root.pem` in `dir`. */
function place(pair: Pair, where = dir): void {
  replace(join(where, 'key.pem'), pair.key);
  replace(join(where, 'cert.pem'), pair.chain);
  replace(join(where, 'root.pem'), pair.roots);
}

const certName = (where = dir) => `file-cert:${join(where, 'cert.pem')}~${join(where, 'key.pem')}`;
const rootName = (where = dir) => `file-root:${join(where, 'root.pem')}`;

async function serial(stream: SotwClientStream): Promise<string> {
  const { secrets } = await stream.next();
  stream.ack();
  return new X509Certificate(secrets[0]!.chainPem!).serialNumber.toLowerCase();
}

function ask(...names: string[]): SotwClientStream {
  const stream = world.client().openStream();
  stream.request(names);
  return stream;
}

/** Longer than the debounce of the watch. */
const QUIET_MS = 400;

describe('files', () => {
  test('istio 10a.9, 10.9 are served beside the identity; an atomic swap is exactly one push, a new key alone none', async () => {
    const first = await makePair();
    place(first);
    await world.rotate();
    const stream = ask(certName());
    expect(await serial(stream)).toBe(first.serial);
    expect((await world.client().fetch(['default', rootName()])).names).toEqual([
      'default',
      rootName(),
    ]);
    const second = await makePair();
    replace(join(dir, 'key.pem'), second.key);
    await stream.silence(QUIET_MS);
    replace(join(dir, 'cert.pem'), second.chain);
    expect(await serial(stream)).toBe(second.serial);
    await stream.silence(QUIET_MS);
  });

  test('istio 10a.9, 10.9 a root replaced is one push, and one deleted and made again too', async () => {
    place(await makePair());
    const stream = ask(rootName());
    await stream.next();
    stream.ack();
    const other = await issueCa('other');
    replace(join(dir, 'root.pem'), certificatesPem([other.certificateDer]));
    expect((await stream.next()).secrets[0]!.rootsPem).toBe(
      certificatesPem([other.certificateDer]).toString(),
    );
    stream.ack();
    unlinkSync(join(dir, 'root.pem'));
    await stream.silence(QUIET_MS);
    replace(join(dir, 'root.pem'), certificatesPem([world.ca.certificateDer]));
    expect((await stream.next()).secrets[0]!.rootsPem).toBe(
      certificatesPem([world.ca.certificateDer]).toString(),
    );
    stream.ack();
    await stream.silence(QUIET_MS);
  });

  test('field A1: of a root file goes out what is valid, living first, taken up and dropped at its dates', async () => {
    const { ca } = world;
    const now = Date.now();
    const [begins, ends] = [now + 3_000, now + 5_000].map(
      (at) => Math.ceil(at / 1_000) * 1_000,
    ) as [number, number];
    const again = (notBeforeAt: number, notAfterAt: number) =>
      makeTestCa({ privateKey: ca.privateKey, subjectDer: ca.subjectDer, notBeforeAt, notAfterAt });
    const ended = await again(now - 9 * HOUR_MS, now - HOUR_MS);
    const ahead = await again(begins, ends);
    const pem = (...cas: readonly TestCa[]) =>
      certificatesPem(cas.map(({ certificateDer }) => certificateDer)).toString();
    replace(join(dir, 'root.pem'), pem(ended, ahead, ca));
    const stream = ask(rootName());
    const next = async () => {
      const { secrets } = await stream.next();
      stream.ack();
      return secrets[0]!.rootsPem;
    };
    expect(await next()).toBe(pem(ca));
    expect(await next()).toBe(pem(...[ca, ahead]));
    expect(Date.now()).toBeGreaterThanOrEqual(begins);
    expect(await next()).toBe(pem(ca));
    expect(Date.now()).toBeGreaterThanOrEqual(ends);
    // Nothing in it is valid: what is served stays.
    replace(join(dir, 'root.pem'), pem(ended));
    await stream.silence(QUIET_MS);
  });

  test('field A1: a root file of which no root is valid yet is served from the moment at which one is', async () => {
    const begins = Math.ceil((Date.now() + 2_000) / 1_000) * 1_000;
    const ahead = await makeTestCa({ notBeforeAt: begins, notAfterAt: begins + HOUR_MS });
    replace(join(dir, 'root.pem'), certificatesPem([ahead.certificateDer]));
    const { secrets } = await ask(rootName()).next();
    expect(Date.now()).toBeGreaterThanOrEqual(begins);
    expect(secrets[0]!.rootsPem).toBe(certificatesPem([ahead.certificateDer]).toString());
  });

  test('istio 10a.10, 10.18 are followed through the second and later swaps of ..data', async () => {
    const mount = join(dir, 'mount');
    mkdirSync(mount);
    const swap = (generation: string, pair: Pair) => {
      mkdirSync(join(mount, generation));
      place(pair, join(mount, generation));
      symlinkSync(generation, join(mount, '..data_tmp'));
      renameSync(join(mount, '..data_tmp'), join(mount, '..data'));
    };
    const first = await makePair();
    swap('..1', first);
    for (const name of ['cert.pem', 'key.pem', 'root.pem'])
      symlinkSync(join('..data', name), join(mount, name));
    const stream = ask(certName(mount));
    expect(await serial(stream)).toBe(first.serial);
    for (const generation of ['..2', '..3', '..4']) {
      const pair = await makePair();
      swap(generation, pair);
      expect(await serial(stream)).toBe(pair.serial);
    }
    await stream.silence(QUIET_MS);
  });

  test('istio 10.16, 10.17 behind a symbolic link inside are served, and served again after their directory went and came', async () => {
    const real = join(dir, 'real');
    mkdirSync(real);
    const first = await makePair();
    place(first, real);
    symlinkSync(real, join(dir, 'link'));
    const stream = ask(certName(join(dir, 'link')));
    expect(await serial(stream)).toBe(first.serial);
    rmSync(real, { recursive: true });
    await stream.silence(QUIET_MS);
    const second = await makePair();
    mkdirSync(real);
    place(second, real);
    expect(await serial(stream)).toBe(second.serial);
  });

  test('istio 10.15 by a relative path are the same files', async () => {
    const pair = await makePair();
    place(pair);
    const relativeDir = relative(process.cwd(), dir);
    expect(await serial(ask(certName(relativeDir)))).toBe(pair.serial);
  });

  test('istio 10a.11, 10.8 bad certificates in a root file are left out and the good ones kept', async () => {
    const other = await issueCa('other');
    const good = certificatesPem([world.ca.certificateDer]);
    const bad = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
    replace(
      join(dir, 'root.pem'),
      Buffer.concat([good, Buffer.from(bad), certificatesPem([other.certificateDer])]),
    );
    const { secrets } = await world.client().fetch([rootName()]);
    const bundle = createTrustBundle([world.ca.certificateDer, other.certificateDer]);
    expect(secrets[0]!.rootsPem).toBe(certificatesPem(bundle.rootsDer).toString());
    await world.client().fetch([rootName()]);
    // News once, however often it is asked for.
    expect(
      world.events.filter(
        ({ event }) => event === 'root file has invalid certificates, using the others',
      ),
    ).toHaveLength(1);
  });

  test('istio 10.10 that are missing make their name wait, and are answered when they come', async () => {
    const stream = ask(certName());
    await stream.silence(QUIET_MS);
    const pair = await makePair();
    place(pair);
    expect(await serial(stream)).toBe(pair.serial);
  });

  test('istio 10a.11 that go bad leave the last good ones in service', async () => {
    const pair = await makePair();
    place(pair);
    const stream = ask(certName());
    expect(await serial(stream)).toBe(pair.serial);
    replace(join(dir, 'cert.pem'), 'no certificate');
    await stream.silence(QUIET_MS);
    expect(await serial(ask(certName()))).toBe(pair.serial);
  });

  test('istio 10.14 file-root:system is the bundle of the operating system', async () => {
    const usual = [
      '/etc/ssl/certs/ca-certificates.crt',
      '/etc/pki/tls/certs/ca-bundle.crt',
      '/etc/ssl/cert.pem',
    ].some(existsSync);
    const stream = ask('file-root:system');
    if (usual) expect((await stream.next()).secrets[0]!.rootsPem).toContain('BEGIN CERTIFICATE');
    else await stream.silence(QUIET_MS);
  });

  test('are watched once for many streams and no longer than somebody asks', async () => {
    const pair = await makePair();
    place(pair);
    const streams = [ask(certName()), ask(certName())];
    for (const stream of streams) expect(await serial(stream)).toBe(pair.serial);
    for (const stream of streams) stream.request([]);
    await streams[0]!.silence(QUIET_MS);
    const next = await makePair();
    place(next);
    expect(await serial(ask(certName()))).toBe(next.serial);
    for (const stream of streams) await stream.silence(50);
  });
});

describe('files are refused', () => {
  test.each([
    ['outside the allowed directories', () => 'file-root:/etc/hostname'],
    ['beside an allowed directory of similar name', () => `file-root:${dir}x/root.pem`],
    ['above it by dots', () => `file-root:${dir}/../root.pem`],
    ['as the directory itself', () => `file-root:${dir}`],
    ['with a NUL', () => `file-root:${dir}/root.pem\0`],
    ['as a key that is elsewhere', () => `file-cert:${dir}/cert.pem~/etc/hostname`],
  ])('%s: the name is unknown', async (_what, name) => {
    place(await makePair());
    const stream = world.client().openDelta();
    stream.request({ subscribe: [name()] });
    expect((await stream.next()).removed).toEqual([name()]);
    expect(world.server.unknownNames()).toEqual([{ name: name(), count: 1 }]);
  });

  test('where a symbolic link leads out: the name is unknown, until the link leads in', async () => {
    const pair = await makePair();
    const outside = tempDir();
    place(pair, outside);
    symlinkSync(outside, join(dir, 'way-out'));
    const name = rootName(join(dir, 'way-out'));
    const stream = world.client().openDelta();
    stream.request({ subscribe: [name] });
    expect((await stream.next()).removed).toEqual([name]);
    stream.ack();
    unlinkSync(join(dir, 'way-out'));
    mkdirSync(join(dir, 'way-out'));
    place(pair, join(dir, 'way-out'));
    expect((await stream.next()).names).toEqual([name]);
  });

  test.each<[string, (path: string) => void]>([
    ['a directory', (path) => mkdirSync(path)],
    ['a FIFO that nobody writes to', (path) => execFileSync('mkfifo', [path])],
    ['too long', (path) => writeFileSync(path, Buffer.alloc(LIMITS.fileBytes + 1, 0x20))],
    ['empty', (path) => writeFileSync(path, '')],
    [
      'a key where a root should be',
      (path) => writeFileSync(path, makeKey('ed25519').export({ type: 'pkcs8', format: 'pem' })),
    ],
  ])('that are %s: the name waits', async (_what, make) => {
    make(join(dir, 'root.pem'));
    const stream = ask(rootName());
    await stream.silence(QUIET_MS);
    expect(world.events).toContainEqual(
      expect.objectContaining({
        event: 'secret files invalid, secret withheld',
      }),
    );
    expect(world.server.unknownNames()).toEqual([]);
  });

  test('that hold a key of another certificate: no mixed pair is ever sent', async () => {
    const [one, other] = [await makePair(), await makePair()];
    place({ ...one, key: other.key });
    const stream = ask(certName());
    await stream.silence(QUIET_MS);
    replace(join(dir, 'key.pem'), one.key);
    expect(await serial(stream)).toBe(one.serial);
  });

  test('the log never shows a key', async () => {
    const pair = await makePair();
    place({ ...pair, key: Buffer.concat([pair.key.subarray(0, 100), Buffer.from('\n')]) });
    const stream = ask(certName());
    await stream.silence(QUIET_MS);
    const body = pair.key.toString().split('\n')[1]!;
    expect(JSON.stringify(world.events)).not.toContain(body.slice(0, 30));
  });

  test('where no directory is allowed, all of them', async () => {
    const closed = await startSdsWorld(tempDir());
    try {
      await expect(closed.client().fetch(['file-root:system'])).rejects.toMatchObject({ code: 5 });
    } finally {
      await closed.close();
    }
  });
});
