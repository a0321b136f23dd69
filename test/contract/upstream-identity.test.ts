import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { loadConfig } from '../../agent/config/load';
import {
  certificatesPem,
  parseCertificates,
  parseRootBundle,
} from '../../agent/identity/certificate';
import { planRenewal } from '../../agent/lifecycle/rotation';
import { runAgent } from '../support/agent';
import { writeCaDir } from '../support/ca-dir';
import { HOUR_MS, issueLeaf, makeKey, makeTestCa, spkiOf } from '../support/certs';
import { makeMountedFiles, writeFiles } from '../support/mounted-files';
import { issueCa } from '../support/sds-world';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

// Numbers are those of upstream's conformance list: istio-agent's secretcache tests. Where ours differs, the title says what ours does.

describe("upstream's secret cache, numbers 1 to 8 and 11 to 13", () => {
  test('1 the chain is leaf and intermediates in order, without the root that upstream appends; ROOTCA is the bundle', async () => {
    const root = await issueCa();
    const now = Date.now();
    const intermediate = await makeTestCa({
      parent: root,
      notBeforeAt: now - HOUR_MS,
      notAfterAt: now + 1_000 * HOUR_MS,
    });
    const { client } = await runAgent((dir) => {
      writeCaDir(join(dir, 'ca'), { signer: intermediate, roots: [root] });
      return {};
    });
    const chain = parseCertificates(Buffer.from((await client.get('default')).chainPem!), 'chain');
    expect(chain).toHaveLength(2);
    expect(chain[1]!.der).toEqual(Buffer.from(intermediate.certificateDer));
    expect((await client.get('ROOTCA')).rootsPem).toBe(
      certificatesPem([root.certificateDer]).toString(),
    );
  });

  test('2 and behaviour 1: a second request is answered from memory, without another CSR', async () => {
    const { client, workload } = await runAgent();
    const first = await client.get('default');
    expect(await client.get('default')).toEqual(first);
    expect(await client.get('ROOTCA')).toMatchObject({ rootsPem: expect.any(String) });
    expect(workload().attempts).toBe(1);
  });

  test('3 cert_expiry_seconds of default is positive and below the validity', async () => {
    const { client, metrics } = await runAgent(() => ({ flags: { ttl: '1h' } }));
    await client.get('default');
    const seconds = Number(
      /^istio_agent_cert_expiry_seconds\{resource_name="default"\} (\S+)$/m.exec(
        await metrics(),
      )?.[1],
    );
    expect(seconds).toBeGreaterThan(3_500);
    expect(seconds).toBeLessThanOrEqual(3_600);
  });

  test('4 and behaviour 2: rotation sends default to its watchers, and ROOTCA once only', async () => {
    const { client, agent } = await runAgent();
    const roots = client.openStream();
    roots.request(['ROOTCA']);
    await roots.next();
    roots.ack();
    const leaf = client.openStream();
    leaf.request(['default']);
    const first = await leaf.next();
    leaf.ack();
    for (const round of [1, 2]) {
      await agent.view.rotate(
        { wait: false, reason: `test ${round}` },
        new AbortController().signal,
      );
      const next = await leaf.next();
      expect(next.names).toEqual(['default']);
      expect(next.secrets[0]!.chainPem).not.toBe(first.secrets[0]!.chainPem);
      leaf.ack();
    }
    await roots.silence();
  });

  // Upstream's grace ratio g is the share left before expiry: ours renews at 1 - g. Upstream's 0 and 1 are refused.
  test.each([
    ['0.5', 30],
    ['0.25', 45],
    ['0.75', 15],
  ])(
    '5 and behaviour 3: SECRET_GRACE_PERIOD_RATIO %s renews a one-hour certificate after %d minutes',
    async (ratio, minutes) => {
      const { config } = await load({
        SECRET_GRACE_PERIOD_RATIO: ratio,
        SECRET_GRACE_PERIOD_RATIO_JITTER: '0',
      });
      const plan = planRenewal(
        { notBeforeAt: -120_000, receivedAt: 0, notAfterAt: HOUR_MS },
        policyOf(config),
        0.7,
      );
      expect(plan.renewAt).toBe(minutes * 60_000);
    },
  );

  test.each(['0', '1', '-0.1', '1.1', 'x'])(
    '5 SECRET_GRACE_PERIOD_RATIO %s is refused with its origin, where upstream renews at once or never',
    (ratio) =>
      expect(load({ SECRET_GRACE_PERIOD_RATIO: ratio })).rejects.toThrow(
        expect.objectContaining({
          code: 'ERR_CONFIG',
          message: expect.stringContaining('SECRET_GRACE_PERIOD_RATIO'),
        }),
      ),
  );

  test('5 and behaviour 3: a certificate is due before it expires; one that is received expired, at the pace of one request a second', () => {
    const dueAt = (receivedAt: number) =>
      planRenewal(
        { notBeforeAt: 0, receivedAt, notAfterAt: HOUR_MS },
        { ratio: 0.5, jitterRatio: 0 },
        0,
      ).renewAt;
    expect(dueAt(0)).toBe(0.5 * HOUR_MS);
    expect(dueAt(2 * HOUR_MS)).toBe(2 * HOUR_MS + 1_000);
  });

  test('6 and behaviour 3: jitter only moves renewal earlier, by no more than its width, and never before receipt', async () => {
    const { config } = await load({
      SECRET_GRACE_PERIOD_RATIO: '0.5',
      SECRET_GRACE_PERIOD_RATIO_JITTER: '0.4',
    });
    const interval = { notBeforeAt: 0, receivedAt: 0, notAfterAt: HOUR_MS };
    for (let draw = 0; draw < 1_000; draw += 1) {
      const { renewAt } = planRenewal(interval, policyOf(config), draw / 1_000);
      expect(renewAt).toBeGreaterThanOrEqual(0.1 * HOUR_MS);
      expect(renewAt).toBeLessThanOrEqual(0.5 * HOUR_MS);
    }
  });

  test('7 mounted credentials count only where all three files are there', async () => {
    const dir = tempDir();
    const files = await makeMountedFiles(await issueCa());
    const flags = { 'credentials-dir': dir };
    writeFiles(dir, { 'cert-chain.pem': files['cert-chain.pem'], 'key.pem': files['key.pem'] });
    await expect(loadConfig({ flags, env: {} })).rejects.toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG', field: 'flag --ca' }),
    );
    writeFiles(dir, files);
    expect((await loadConfig({ flags, env: {} })).config.ca).toEqual(['file']);
  });

  test('8 and behaviour 11: of a root bundle the good certificates are kept, the bad ones told; nothing good is an error', async () => {
    const roots = await Promise.all(['a', 'b', 'c'].map((name) => makeTestCa({ name })));
    const good = certificatesPem(roots.map((root) => root.certificateDer));
    const negative = Buffer.from(
      `-----BEGIN CERTIFICATE-----\n${Buffer.from(issueLeaf(roots[0]!, { key: { spkiDer: spkiOf(makeKey('ec', 'P-256')) }, serial: Buffer.from([0xff]) })).toString('base64')}\n-----END CERTIFICATE-----\n`,
    );
    const kept = parseRootBundle(Buffer.concat([negative, good]), 'roots');
    expect(kept.bundle.rootsDer).toHaveLength(3);
    expect(kept.skipped).toHaveLength(1);
    const tail = parseRootBundle(
      Buffer.concat([
        certificatesPem([roots[0]!.certificateDer]),
        Buffer.from('-----BEGIN CERTIFICATE-----\nAAAA\n'),
      ]),
      'roots',
    );
    expect(tail.bundle.rootsDer).toHaveLength(1);
    expect(() => parseRootBundle(Buffer.alloc(0), 'roots')).toThrow(
      expect.objectContaining({ code: 'ERR_PARSE' }),
    );
  });

  test('11 certificates are joined with exactly one newline after each', async () => {
    const { client } = await runAgent();
    const { chainPem } = await client.get('default');
    expect(chainPem).toMatch(
      /^(-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=]+\n)+-----END CERTIFICATE-----\n)+$/,
    );
  });

  test('12, 13 and behaviour 12: a trust bundle update sends ROOTCA once, sorted and without doubles, and leaves the certificate alone', async () => {
    const [root, other] = [await issueCa('one'), await issueCa('two')];
    const { client, dir, workload } = await runAgent((base) => {
      writeCaDir(join(base, 'ca'), { signer: root, roots: [root] });
      return {};
    });
    const roots = client.openStream();
    roots.request(['ROOTCA']);
    await roots.next();
    roots.ack();
    const leaf = client.openStream();
    leaf.request(['default']);
    await leaf.next();
    leaf.ack();
    writeCaDir(join(dir, 'ca'), { roots: [other, root, other] });
    const next = await roots.next();
    roots.ack();
    const sorted = [root.certificateDer, other.certificateDer].sort(Buffer.compare);
    expect(next.secrets[0]!.rootsPem).toBe(certificatesPem(sorted).toString());
    writeCaDir(join(dir, 'ca'), { roots: [root, other] });
    await roots.silence(600);
    // Upstream drops the certificate with its bundle and asks for another; ours is still good, so nothing is asked and no timer is left over.
    await leaf.silence(0);
    expect(workload().attempts).toBe(1);
  });

  test('behaviour 8: a failed generation is held, not spread: the stream stays and is answered when the CA can sign again', async () => {
    const now = Date.now();
    const [dying, next] = [
      await makeTestCa({ notBeforeAt: now - HOUR_MS, notAfterAt: now + 1_500 }),
      await issueCa('next'),
    ];
    const { client, dir, workload } = await runAgent((base) => {
      writeCaDir(join(base, 'ca'), { signer: dying, roots: [dying] });
      return {};
    });
    await until('the certificate to expire', async () => workload().state === 'unavailable');
    const early = client.openStream();
    early.request(['default']);
    await early.silence();
    writeCaDir(join(dir, 'ca'), { signer: next, roots: [next] });
    expect((await early.next()).names).toEqual(['default']);
    expect((await client.get('default')).name).toBe('default');
  });

  test('behaviour 12: the key on disk of OUTPUT_CERTS belongs to the certificate that is served', async () => {
    const { client, dir, workload } = await runAgent((base) => ({
      env: { OUTPUT_CERTS: join(base, 'out') },
    }));
    const { chainPem, keyPem } = await client.get('default');
    await until('files to be written', async () => workload().output?.serial);
    expect(readFileSync(join(dir, 'out', 'cert-chain.pem'), 'utf8')).toBe(chainPem);
    expect(readFileSync(join(dir, 'out', 'key.pem'), 'utf8')).toBe(keyPem);
  });
});

function load(env: Record<string, string>) {
  return loadConfig({
    flags: 'SECRET_GRACE_PERIOD_RATIO' in env ? { ca: 'builtin' } : {},
    env,
    cwd: '/nonexistent',
  });
}

function policyOf(config: { readonly renewRatio: number; readonly renewJitter: number }) {
  return { ratio: config.renewRatio, jitterRatio: config.renewJitter };
}
