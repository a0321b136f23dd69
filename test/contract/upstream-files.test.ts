import { readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { generateKeyPair } from '../../agent/identity/keys';
import { type RunningAgent, runAgent, subdir } from '../support/agent';
import {
  makeMountedFiles,
  publishLikeKubelet,
  swapFile,
  writeFiles,
} from '../support/mounted-files';
import type { SotwClientStream } from '../support/sds-client';
import { issueCa } from '../support/sds-world';

// Numbers are those of upstream's conformance list: istio-agent's secretcache tests on files. Where ours differs, the title says so.

/** Longer than the watcher's debounce: what is going to be pushed has been pushed. */
const QUIET_MS = 500;

async function mounted(
  prepare: (dir: string) => Promise<void>,
): Promise<RunningAgent & { readonly files: string }> {
  let ready: Promise<void> | undefined;
  const running = await runAgent((dir) => {
    ready = prepare(subdir(dir, 'mounted'));
    return {
      env: { FILE_MOUNTED_CERTS: 'true' },
      flags: { 'credentials-dir': join(dir, 'mounted') },
    };
  });
  await ready;
  return { ...running, files: join(running.dir, 'mounted') };
}

async function watch(running: RunningAgent, name: string): Promise<SotwClientStream> {
  const stream = running.client.openStream();
  stream.request([name]);
  await stream.next();
  stream.ack();
  return stream;
}

describe("upstream's files, numbers 9, 10 and 14 to 20", () => {
  test('9 and behaviour 9: mounted files are default and ROOTCA; a new certificate is one push, a new key alone none, a new root one', async () => {
    const [ca, key] = [await issueCa(), await generateKeyPair('ecdsa-p256')];
    const first = await makeMountedFiles(ca, key);
    const running = await mounted(async (dir) => writeFiles(dir, first));
    const [leaf, roots] = [await watch(running, 'default'), await watch(running, 'ROOTCA')];
    expect((await running.client.get('default')).chainPem).toBe(first['cert-chain.pem'].toString());

    const renewed = await makeMountedFiles(ca, key);
    swapFile(running.files, 'cert-chain.pem', renewed['cert-chain.pem']);
    expect((await leaf.next()).secrets[0]!.chainPem).toBe(renewed['cert-chain.pem'].toString());
    leaf.ack();
    await leaf.silence(QUIET_MS);

    swapFile(running.files, 'key.pem', (await makeMountedFiles(ca))['key.pem']);
    await leaf.silence(QUIET_MS);
    swapFile(running.files, 'key.pem', renewed['key.pem']);
    await leaf.silence(QUIET_MS);

    const other = await issueCa('other');
    swapFile(
      running.files,
      'root-cert.pem',
      Buffer.concat([first['root-cert.pem'], (await makeMountedFiles(other))['root-cert.pem']]),
    );
    expect((await roots.next()).names).toEqual(['ROOTCA']);
    roots.ack();
    await roots.silence(QUIET_MS);
    await leaf.silence(0);
  });

  test('9 file-cert: and file-root: names are served beside them, and follow their files, deleted and made again too', async () => {
    const ca = await issueCa();
    const running = await runAgent((dir) => ({ flags: { 'sds-file-dir': subdir(dir, 'files') } }));
    const dir = join(running.dir, 'files');
    const files = await makeMountedFiles(ca);
    writeFiles(dir, files);
    const [certName, rootName] = [
      `file-cert:${dir}/cert-chain.pem~${dir}/key.pem`,
      `file-root:${dir}/root-cert.pem`,
    ];
    const [pair, roots] = [await watch(running, certName), await watch(running, rootName)];
    expect((await running.client.get(certName)).keyPem).toBe(files['key.pem'].toString());

    rmSync(join(dir, 'root-cert.pem'));
    await roots.silence(QUIET_MS);
    const next = await makeMountedFiles(await issueCa('next'));
    writeFileSync(join(dir, 'root-cert.pem'), next['root-cert.pem']);
    expect((await roots.next()).secrets[0]!.rootsPem).toBe(next['root-cert.pem'].toString());
    roots.ack();
    await pair.silence(0);
    // The workload's own identity is untouched by any of it.
    expect((await running.client.get('default')).chainPem).not.toBe(
      files['cert-chain.pem'].toString(),
    );
  });

  test('10 files that are not there: upstream ends the stream with "no such file", ours waits and says why in status', async () => {
    const running = await mounted(async () => undefined);
    const stream = running.client.openStream();
    stream.request(['default']);
    await stream.silence();
    expect(running.status()).toMatchObject({
      ready: false,
      reasons: [expect.stringContaining('there is no such file')],
    });
    const files = await makeMountedFiles(await issueCa());
    writeFiles(running.files, files);
    expect((await stream.next()).secrets[0]!.chainPem).toBe(files['cert-chain.pem'].toString());
  });

  test('14 file-root:system is the bundle of the operating system, and nothing else', async () => {
    const { client } = await runAgent();
    const system = ['/etc/ssl/certs/ca-certificates.crt', '/etc/pki/tls/certs/ca-bundle.crt']
      .map(readIfThere)
      .find((text) => text !== undefined);
    if (system === undefined)
      throw new Error('this machine has no bundle of its own: install ca-certificates');
    const served = (await client.get('file-root:system')).rootsPem!;
    expect(served.match(/BEGIN CERTIFICATE/g)!.length).toBeGreaterThan(50);
    expect(served).not.toBe((await client.get('ROOTCA')).rootsPem);
  });

  test('15 a relative and an absolute name of one file are answered alike', async () => {
    const running = await runAgent((dir) => ({ flags: { 'sds-file-dir': subdir(dir, 'files') } }));
    const files = await makeMountedFiles(await issueCa());
    writeFiles(join(running.dir, 'files'), files);
    const absolute = await running.client.get(`file-root:${running.dir}/files/root-cert.pem`);
    const relative = await running.client.get(
      `file-root:${relativeTo(join(running.dir, 'files', 'root-cert.pem'))}`,
    );
    expect(relative.rootsPem).toBe(absolute.rootsPem);
  });

  test('16 and behaviour 10: files behind a symlink, whose target is replaced or which points elsewhere, are followed', async () => {
    const ca = await issueCa();
    const [first, second, third] = [
      await makeMountedFiles(ca),
      await makeMountedFiles(ca),
      await makeMountedFiles(ca),
    ];
    const running = await mounted(async (dir) => {
      writeFiles(join(dir, '..', 'one'), first);
      for (const name of Object.keys(first))
        symlinkSync(join(dir, '..', 'one', name), join(dir, name));
    });
    const leaf = await watch(running, 'default');
    writeFiles(join(running.dir, 'one'), second);
    expect((await leaf.next()).secrets[0]!.chainPem).toBe(second['cert-chain.pem'].toString());
    leaf.ack();
    writeFiles(join(running.dir, 'two'), third);
    for (const name of Object.keys(third)) {
      symlinkSync(join(running.dir, 'two', name), join(running.files, `.${name}`));
      renameSync(join(running.files, `.${name}`), join(running.files, name));
    }
    expect((await leaf.next()).secrets[0]!.chainPem).toBe(third['cert-chain.pem'].toString());
  });

  test('17 a directory that is removed and comes back is followed again', async () => {
    const ca = await issueCa();
    const running = await mounted(async (dir) => writeFiles(dir, await makeMountedFiles(ca)));
    const leaf = await watch(running, 'default');
    rmSync(running.files, { recursive: true });
    await leaf.silence(QUIET_MS);
    const back = await makeMountedFiles(ca);
    writeFiles(running.files, back);
    expect((await leaf.next()).secrets[0]!.chainPem).toBe(back['cert-chain.pem'].toString());
  });

  test('18 and behaviour 10: a kubelet swap of ..data is followed at the first, the second and every later time', async () => {
    const ca = await issueCa();
    const running = await mounted(async (dir) =>
      publishLikeKubelet(dir, await makeMountedFiles(ca)),
    );
    const leaf = await watch(running, 'default');
    for (const _ of [1, 2, 3]) {
      const next = await makeMountedFiles(ca);
      publishLikeKubelet(running.files, next);
      expect((await leaf.next()).secrets[0]!.chainPem).toBe(next['cert-chain.pem'].toString());
      leaf.ack();
    }
    await leaf.silence(QUIET_MS);
  });

  test('19, 20 a symlink in the middle of the path is followed, a relative, a chained and, once mended, a broken one too', async () => {
    const ca = await issueCa();
    const files = await makeMountedFiles(ca);
    const running = await runAgent((dir) => {
      writeFiles(join(dir, 'real'), files);
      symlinkSync('real', join(dir, 'relative'));
      symlinkSync(join(dir, 'relative'), join(dir, 'chained'));
      symlinkSync(join(dir, 'chained', 'gone'), join(dir, 'broken'));
      return {
        env: { FILE_MOUNTED_CERTS: 'true' },
        flags: { 'credentials-dir': join(dir, 'chained'), 'sds-file-dir': dir },
      };
    });
    expect((await running.client.get('default')).chainPem).toBe(files['cert-chain.pem'].toString());
    const broken = running.client.openStream();
    broken.request([`file-root:${running.dir}/broken`]);
    await broken.silence();
    writeFileSync(join(running.dir, 'real', 'gone'), files['root-cert.pem']);
    expect((await broken.next()).secrets[0]!.rootsPem).toBe(files['root-cert.pem'].toString());
  });

  test('behaviour 11: malformed files are read again and again, and the last good ones stay in service meanwhile', async () => {
    const ca = await issueCa();
    const running = await mounted(async (dir) => writeFiles(dir, await makeMountedFiles(ca)));
    const leaf = await watch(running, 'default');
    swapFile(
      running.files,
      'cert-chain.pem',
      Buffer.from('-----BEGIN CERTIFICATE-----\ngarbage\n-----END CERTIFICATE-----\n'),
    );
    await leaf.silence(QUIET_MS);
    expect(running.workload()).toMatchObject({
      state: 'overdue',
      lastError: { code: 'ERR_FILE_SOURCE' },
    });
    expect((await running.client.get('default')).name).toBe('default');
    const good = await makeMountedFiles(ca);
    writeFiles(running.files, good);
    expect((await leaf.next()).secrets[0]!.chainPem).toBe(good['cert-chain.pem'].toString());
  });
});

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

function relativeTo(path: string): string {
  return path.startsWith(process.cwd())
    ? path.slice(process.cwd().length + 1)
    : `${'../'.repeat(process.cwd().split('/').length - 1)}${path.slice(1)}`;
}
