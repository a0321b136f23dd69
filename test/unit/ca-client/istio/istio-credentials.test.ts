import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { describe, expect, jest, test } from '@jest/globals';
import { AgentError } from '../../../../agent/base/errors';
import { certificatesPem } from '../../../../agent/identity/certificate';
import { privateKeyPem } from '../../../../agent/identity/keys';
import { parseSpiffeId } from '../../../../agent/identity/spiffe-id';
import type { Svid } from '../../../../agent/identity/svid';
import type { ClientCertificate } from '../../../../ca-client/istio/client-certificate';
import { CredentialSelector } from '../../../../ca-client/istio/credential-selector';
import { HOUR_MS, TEST_ID } from '../../../support/certs';
import {
  type FakeCa,
  type FakeCaOptions,
  makeJwt,
  startFakeIstiod,
} from '../../../support/fake-istio-csr';
import {
  type ClientOptions,
  closing,
  issue,
  openClient,
  WorkloadFiles,
} from '../../../support/istio-world';
import { settle, TestClock } from '../../../support/test-clock';
import { testDeps } from '../../../support/test-deps';
import { clientPair, liveCa, rootsPem, serverPair, writePair } from '../../../support/tls-ca';
import { startUnaryServer } from '../../../support/unary-server';
import { until } from '../../../support/until';

/** A fake istiod, the files of a workload with its root and a token, and a client. */
async function world(options: Partial<ClientOptions> & { fake?: FakeCaOptions } = {}) {
  const { fake: fakeOptions, ...clientOptions } = options;
  const fake = closing(await startFakeIstiod(fakeOptions));
  const files = new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID));
  return {
    fake,
    files,
    ...(await openClient(files, { address: fake.server.address, ...clientOptions })),
  };
}

/** Whom the provisioned certificate names, so that a server tells it from our own. */
const RETIRED = 'spiffe://cluster.local/ns/shop/sa/retired';
const sentToken = (headers: { authorization?: string | undefined }) => headers.authorization;

/** Of a token that nothing is wrong with. */
const claims = () => ({
  iss: 'test',
  sub: 'system:serviceaccount:shop:cart',
  aud: ['istio-ca'],
  exp: Math.floor(Date.now() / 1_000) + 600,
});

/** What the agent would present of its own. */
function own(svid: Svid): ClientCertificate {
  return {
    chainPem: certificatesPem(svid.chainDer),
    keyPem: privateKeyPem(svid.key, 'pkcs8'),
    notBeforeAt: svid.notBeforeAt,
    notAfterAt: svid.notAfterAt,
  };
}

describe('a call to istiod', () => {
  test('38 carries the token, and the cluster id always, even without one', async () => {
    const { fake, ca } = await world();
    await issue(ca);
    const [call] = fake.server.calls;
    expect(call?.headers.clusterid).toBe('');
    expect(sentToken(call!.headers)).toMatch(/^Bearer [\w-]+\.[\w-]+\.[\w-]+$/);
  });

  test('carries cluster id, CA_HEADER_* and the signer that were configured', async () => {
    const headers = new Map([
      ['X-Team', 'shop'],
      ['trace.id', '7'],
    ]);
    const { fake, ca } = await world({ clusterId: 'east', headers, certSigner: 'signer1' });
    await issue(ca);
    const [call] = fake.server.calls;
    expect(call?.headers).toMatchObject({ clusterid: 'east', 'x-team': 'shop', 'trace.id': '7' });
    expect(call?.message.includes(Buffer.from('CertSigner\x12\x09\x1a\x07signer1'))).toBe(true);
  });

  test('38 with a wrong token fails slowly, and loudly from the second time on', async () => {
    const { fake, files, ca, deps } = await world();
    files.token(makeJwt({ sub: 'nobody' }));
    await expect(issue(ca)).rejects.toMatchObject({
      code: 'ERR_CA_REJECTED',
      retry: 'slow',
      hint: expect.stringContaining('refuses the token'),
    });
    expect(deps.events.filter(({ level }) => level === 'error')).toEqual([]);
    await expect(issue(ca)).rejects.toMatchObject({
      hint: expect.stringContaining('has not changed since the CA first refused it'),
    });
    expect(deps.events.filter(({ level }) => level === 'error')).toEqual([
      {
        level: 'error',
        event: 'the CA refuses the token, and it was not replaced',
        facts: expect.anything(),
      },
    ]);
    files.token(fake.token(TEST_ID));
    await expect(issue(ca)).resolves.toBeDefined();
  });

  test('field: with a token that is right as far as can be seen may have met an outage: nothing is said of it in the log for a minute', async () => {
    const clock = new TestClock(Date.now());
    const fake = closing(await startFakeIstiod());
    const files = new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID));
    const { ca, deps } = await openClient(
      files,
      { address: fake.server.address },
      testDeps({ clock }),
    );
    const errors = () => deps.events.filter(({ level }) => level === 'error');
    fake.become({ reviewsTokens: false });
    for (const _ of ['first', 'second'])
      await expect(issue(ca)).rejects.toMatchObject({
        code: 'ERR_CA_REJECTED',
        retry: 'unsure',
        hint: expect.stringContaining('token'),
      });
    expect(errors()).toEqual([]);
    await clock.advanceBy(61_000);
    await expect(issue(ca)).rejects.toMatchObject({ retry: 'unsure' });
    expect(errors()).toMatchObject([
      { event: 'the CA refuses the token, and it was not replaced' },
    ]);
    fake.become({ reviewsTokens: true });
    await issue(ca);
  });

  test.each<[string, (fake: FakeCa) => string]>([
    ['is no JWT', () => 'opaque'],
    ['is for another audience', (fake) => fake.token(TEST_ID, { audiences: ['kubernetes'] })],
    ['has expired', (fake) => fake.token(TEST_ID, { expiresAt: Date.now() - 5_000 })],
    [
      'is of another service account',
      () => makeJwt({ ...claims(), sub: 'system:serviceaccount:shop:other' }),
    ],
    ['does not say when it ends', () => makeJwt({ ...claims(), exp: undefined })],
    ['was good for one call', () => `kt1_${'a'.repeat(43)}`],
  ])('field: that is refused is no outage where the token %s', async (_, token) => {
    const { fake, files, ca } = await world();
    files.token(token(fake));
    await expect(issue(ca)).rejects.toMatchObject({ code: 'ERR_CA_REJECTED', retry: 'slow' });
  });

  test('with a join token that was used before says where another comes from', async () => {
    const { files, ca } = await world();
    files.token(`kt1_${'a'.repeat(43)}`);
    for (const _ of ['first', 'second']) {
      await expect(issue(ca)).rejects.toMatchObject({
        code: 'ERR_CA_REJECTED',
        hint: expect.stringMatching(
          /^the join token .* was used before with another key, or is too old; .*keyturn vm bundle.*keyturn vm join/,
        ),
      });
    }
  });

  test.each([
    ['field A6 no trust bundle', 'none', 'no trust bundle of'],
    ['field A6 the bundle of another authority', 'another', 'does not lead to the trust bundle'],
  ])(
    'with a join token and %s is not made until there is the right one',
    async (_, bundle, why) => {
      const { fake, files } = await world();
      const trustBundle = files.write(
        'bundle.pem',
        bundle === 'none' ? '' : rootsPem(await liveCa()),
      );
      const { ca } = await openClient(files.token(`kt1_${'a'.repeat(43)}`), {
        address: fake.server.address,
        trustBundle,
      });
      const error = await issue(ca).catch((caught: Error) => caught);
      expect(error).toMatchObject({
        code: 'ERR_CA_UNAVAILABLE',
        retry: 'soon',
        hint: expect.stringContaining('--trust-bundle'),
      });
      expect(String(error)).toContain(why);
      expect(fake.server.calls).toEqual([]);
      files.write('bundle.pem', rootsPem(fake.signer));
      await expect(issue(ca)).rejects.toMatchObject({ code: 'ERR_CA_REJECTED' });
      expect(fake.server.calls).toHaveLength(1);
    },
  );

  test('field A6 with a join token is not made where the key cannot be kept', async () => {
    const { fake, files, ca } = await world();
    files.token(`kt1_${'a'.repeat(43)}`);
    const full = new AgentError('ERR_OUTPUT', 'write state: ENOSPC', { retry: 'soon' });
    const request = {
      id: parseSpiffeId(TEST_ID),
      csrDer: new Uint8Array(),
      ttlSeconds: 60,
      keepKey: () => Promise.reject(full),
    };
    await expect(ca.sign(request, new AbortController().signal)).rejects.toBe(full);
    expect(fake.server.calls).toEqual([]);
  });

  test('C19 is repeated at once where the token was replaced while it was under way', async () => {
    const { fake, files, ca } = await world({ fake: { answerAfterMs: 100 } });
    files.token(makeJwt({ sub: 'old' }));
    const svid = issue(ca);
    await until('the call', async () => fake.server.handshakes.done > 0);
    files.token(fake.token(TEST_ID));
    await expect(svid).resolves.toBeDefined();
    expect(fake.server.calls).toHaveLength(2);
  });

  test('with an expired token is not made: the token is named, not shown', async () => {
    const { fake, files, ca } = await world();
    const token = fake.token(TEST_ID, { expiresAt: Date.now() - 120_000 });
    files.token(token);
    const error = await issue(ca).catch((caught: Error) => caught);
    expect(error).toMatchObject({
      code: 'ERR_TOKEN',
      retry: 'slow',
      message: expect.stringContaining('expired at'),
    });
    expect(String(error)).not.toContain(token.slice(-20));
    expect(fake.server.calls).toEqual([]);
  });

  test('says what it misses where there is neither token nor certificate', async () => {
    const { files, ca } = await world();
    files.token(undefined);
    await expect(issue(ca)).rejects.toMatchObject({
      code: 'ERR_TOKEN',
      retry: 'soon',
      message: expect.stringContaining('there is no such file'),
    });
  });

  test('with a token for another audience is made, with a warning and its reason when it is refused', async () => {
    const { fake, files, ca, deps } = await world();
    files.token(fake.token(TEST_ID, { audiences: ['kubernetes'] }));
    await expect(issue(ca)).rejects.toMatchObject({
      hint: expect.stringContaining('is for audience kubernetes and not for istio-ca'),
    });
    expect(deps.events).toContainEqual(
      expect.objectContaining({ level: 'warn', event: 'token is for another audience' }),
    );
  });

  test.each([[['istio-ca']], [['kubernetes', 'istio-ca']]])(
    'with a token for %j is made without a warning',
    async (audiences) => {
      const { fake, files, ca, deps } = await world();
      files.token(fake.token(TEST_ID, { audiences }));
      await issue(ca);
      expect(deps.events.map(({ event }) => event)).not.toContain('token is for another audience');
    },
  );

  test('never shows the token in an error, though the CA sends it back', async () => {
    const fake = closing(await startFakeIstiod());
    const files = new WorkloadFiles().roots(fake.signer).token('secret-canary');
    const echo = closing(
      await startUnaryServer({
        pair: serverPair(fake.signer),
        answer: ({ headers }) => ({
          status: status.UNAUTHENTICATED,
          words: `bad token ${headers.authorization}`,
        }),
      }),
    );
    const { ca } = await openClient(files, { address: echo.address });
    const error = (await issue(ca).catch((caught: unknown) => caught)) as Error & { hint?: string };
    expect(error.message).toContain('bad token Bearer [redacted]');
    expect(`${error.message} ${error.hint} ${error.stack}`).not.toContain('canary');
  });
});

describe('a provisioned certificate', () => {
  test.each([
    ['either of them', {}, true],
    ['tokens alone', { clientCertificates: false }, true],
    ['certificates alone', {}, false],
  ])(
    '34 goes along with the token, so that a server for %s is content',
    async (_, fakeOptions, tokenIsKnown) => {
      const prov = new WorkloadFiles();
      const { fake, files, ca } = await world({
        provisioningDir: prov.provDir,
        caRoot: prov.write('ca-root.pem', ''),
        fake: fakeOptions,
      });
      prov.write('ca-root.pem', rootsPem(fake.signer));
      writePair(prov.provDir, clientPair(fake.signer));
      if (!tokenIsKnown) files.token(makeJwt({ sub: 'unknown to this server' }));
      await issue(ca);
      expect(fake.server.calls).toMatchObject([
        { clientUris: [TEST_ID], headers: { authorization: expect.stringContaining('Bearer ') } },
      ]);
    },
  );

  test('35 that is not there does not help at a server which wants one', async () => {
    const { files, ca } = await world();
    files.token(makeJwt({ sub: 'unknown to this server' }));
    await expect(issue(ca)).rejects.toMatchObject({ code: 'ERR_CA_REJECTED', retry: 'slow' });
  });

  test('36 that appears later works at the next attempt', async () => {
    const prov = new WorkloadFiles();
    const { fake, files, ca } = await world({
      provisioningDir: prov.provDir,
      caRoot: prov.write('ca-root.pem', ''),
    });
    prov.write('ca-root.pem', rootsPem(fake.signer));
    files.token(undefined);
    await expect(issue(ca)).rejects.toMatchObject({ code: 'ERR_TOKEN' });
    writePair(prov.provDir, clientPair(fake.signer));
    await issue(ca);
    expect(fake.server.calls).toMatchObject([{ clientUris: [TEST_ID], headers: {} }]);
  });

  test.each([
    ['expired', { notAfterAt: Date.now() - 1_000, notBeforeAt: Date.now() - HOUR_MS }, false],
    ['of a foreign root', {}, true],
  ])('that is %s is never shown: the token does', async (_, times, foreign) => {
    const prov = new WorkloadFiles();
    const { fake, ca, deps } = await world({
      provisioningDir: prov.provDir,
      caRoot: prov.write('ca-root.pem', ''),
    });
    prov.write('ca-root.pem', rootsPem(fake.signer));
    writePair(
      prov.provDir,
      clientPair(foreign ? await liveCa({ name: 'foreign' }) : fake.signer, TEST_ID, times),
    );
    await issue(ca);
    expect(fake.server.calls).toMatchObject([{ clientUris: undefined }]);
    expect(deps.events).toContainEqual(
      expect.objectContaining({ level: 'warn', event: 'client certificate not sent to the CA' }),
    );
  });

  test('whose server refuses it is left out of the next attempt', async () => {
    const mesh = await liveCa({ name: 'mesh' });
    const serverRoot = await liveCa({ name: 'server' });
    const prov = new WorkloadFiles();
    // The server knows the mesh; the certificate hangs on the root of the server's own, which it does not take from clients.
    const fake = closing(await startFakeIstiod({ signer: mesh, pair: serverPair(serverRoot) }));
    const files = new WorkloadFiles().roots(mesh).token(fake.token(TEST_ID));
    writePair(prov.provDir, clientPair(serverRoot));
    const { ca } = await openClient(files, {
      address: fake.server.address,
      provisioningDir: prov.provDir,
      caRoot: prov.write('ca-root.pem', rootsPem(serverRoot)),
    });
    await expect(issue(ca)).rejects.toMatchObject({ code: 'ERR_CA_UNAVAILABLE', retry: 'soon' });
    await expect(issue(ca)).resolves.toBeDefined();
    // Nor does it cost a failure again.
    await expect(issue(ca)).resolves.toBeDefined();
  });
});

describe('the certificate in service', () => {
  test('14 takes the place of the token when that is gone, and not before', async () => {
    let svid: Svid | undefined;
    const { fake, files, ca } = await world({ ownCertificate: () => svid && own(svid) });
    svid = await issue(ca);
    svid = await issue(ca);
    files.token(undefined);
    svid = await issue(ca);
    files.token(fake.token(TEST_ID, { expiresAt: Date.now() - HOUR_MS }));
    svid = await issue(ca);
    expect(
      fake.server.calls.map(({ clientUris, headers }) => [
        clientUris?.[0],
        headers.authorization !== undefined,
      ]),
    ).toEqual([
      [undefined, true],
      [undefined, true],
      [TEST_ID, false],
      [TEST_ID, false],
    ]);
  });

  test('field 14 takes the place of a provisioned one that the CA no longer believes, at once', async () => {
    let svid: Svid | undefined;
    const prov = new WorkloadFiles();
    const { fake, files, ca } = await world({
      provisioningDir: prov.provDir,
      caRoot: prov.write('ca-root.pem', ''),
      ownCertificate: () => svid && own(svid),
      fake: {
        misbehave: ({ clientUris }) =>
          clientUris?.[0] === RETIRED
            ? { status: status.UNAUTHENTICATED, words: 'who?' }
            : undefined,
      },
    });
    prov.write('ca-root.pem', rootsPem(fake.signer));
    svid = await issue(ca);
    files.token(undefined);
    writePair(prov.provDir, clientPair(fake.signer, RETIRED));
    svid = await issue(ca);
    svid = await issue(ca);
    expect(fake.server.calls.map(({ clientUris }) => clientUris?.[0])).toEqual([
      undefined,
      RETIRED,
      TEST_ID,
      TEST_ID,
    ]);
  });

  test('takes the place of a token that the CA no longer believes, for as long as it is not replaced', async () => {
    let svid: Svid | undefined;
    const { fake, files, ca, deps } = await world({ ownCertificate: () => svid && own(svid) });
    svid = await issue(ca);
    // As a one-time token is, once it was used.
    fake.tokens.clear();
    svid = await issue(ca);
    svid = await issue(ca);
    files.token(fake.token(TEST_ID));
    svid = await issue(ca);
    const ways = deps.events
      .filter(({ event }) => event === 'authenticated to CA')
      .map(({ facts }) => facts.by);
    expect(ways).toEqual(['token', 'own certificate', 'token']);
    expect(fake.server.calls.map(({ headers }) => headers.authorization !== undefined)).toEqual([
      true,
      true,
      false,
      false,
      true,
    ]);
  });

  test('goes before a one-time token, which may be used up', async () => {
    let svid: Svid | undefined;
    const { fake, files, ca } = await world({ ownCertificate: () => svid && own(svid) });
    const token = `kt1_${'a'.repeat(43)}`;
    fake.tokens.set(token, [...fake.tokens.values()][0]!);
    files.token(token);
    svid = await issue(ca);
    svid = await issue(ca);
    svid = await issue(ca);
    expect(fake.server.calls.map(({ headers }) => headers.authorization !== undefined)).toEqual([
      true,
      false,
      false,
    ]);
  });

  /** A machine that has a certificate, and beside it the token of one call, of which this client does not know whether it was used. */
  async function joined(options: FakeCaOptions = {}) {
    let svid: Svid | undefined;
    const { fake, files, ca } = await world({
      fake: options,
      ownCertificate: () => svid && own(svid),
    });
    svid = await issue(ca);
    const token = `kt1_${'a'.repeat(43)}`;
    fake.tokens.set(token, [...fake.tokens.values()][0]!);
    files.token(token);
    const tokensShown = () =>
      fake.server.calls.slice(1).map(({ headers }) => headers.authorization !== undefined);
    return {
      fake,
      files,
      ca,
      tokensShown,
      lose: () => (svid = undefined),
      have: (next: Svid) => (svid = next),
    };
  }

  test('field: stands alone through an outage: a server that is not there, or in trouble, has refused nothing', async () => {
    let inTrouble = false;
    const { fake, ca, tokensShown } = await joined({
      misbehave: () => (inTrouble ? { status: status.UNAVAILABLE } : undefined),
    });
    inTrouble = true;
    for (const _ of ['first', 'second'])
      await expect(issue(ca)).rejects.toMatchObject({ code: 'ERR_CA_UNAVAILABLE', retry: 'soon' });
    expect(tokensShown()).toEqual([false, false]);
    await fake.close();
    for (const _ of ['first', 'second', 'third'])
      await expect(issue(ca)).rejects.toMatchObject({ code: 'ERR_CA_UNAVAILABLE' });
    const { signer, tokens } = fake;
    const reborn = closing(await startFakeIstiod({ signer, tokens, port: fake.server.port }));
    await issue(ca);
    expect(reborn.server.calls.map(({ headers }) => headers.authorization)).toEqual([undefined]);
  });

  test('gives way to a one-time token once the CA has refused it, in the same attempt', async () => {
    let revoked = false;
    const { ca, tokensShown } = await joined({
      misbehave: ({ clientUris }) =>
        revoked && clientUris ? { status: status.UNAUTHENTICATED } : undefined,
    });
    revoked = true;
    await issue(ca);
    expect(tokensShown()).toEqual([false, true]);
  });

  test('field: a one-time token that a certificate came of is shown never again, nor when that has ended', async () => {
    let revoked = false;
    const { fake, ca, files, tokensShown, have, lose } = await joined({
      misbehave: ({ clientUris }) =>
        revoked && clientUris ? { status: status.UNAUTHENTICATED } : undefined,
    });
    lose();
    have(await issue(ca));
    have(await issue(ca));
    revoked = true;
    for (const _ of ['first', 'second'])
      await expect(issue(ca)).rejects.toMatchObject({ code: 'ERR_CA_REJECTED' });
    expect(tokensShown()).toEqual([true, false, false, false]);
    lose();
    const { length } = fake.server.calls;
    await expect(issue(ca)).rejects.toMatchObject({
      code: 'ERR_TOKEN',
      message: expect.stringContaining(
        'was used before, and our own certificate is no longer valid',
      ),
      hint: expect.stringContaining('keyturn vm join'),
    });
    expect(fake.server.calls).toHaveLength(length);
    files.token(fake.token(TEST_ID));
    await expect(issue(ca)).resolves.toBeDefined();
  });

  test('14 works from the directory that the agent itself writes', async () => {
    const prov = new WorkloadFiles();
    const { fake, files, ca } = await world({
      provisioningDir: prov.provDir,
      caRoot: prov.write('ca-root.pem', ''),
    });
    prov.write('ca-root.pem', rootsPem(fake.signer));
    const svid = await issue(ca);
    writePair(prov.provDir, own(svid));
    files.token(undefined);
    writePair(prov.provDir, own(await issue(ca)));
    await issue(ca);
    expect(fake.server.calls.map(({ clientUris }) => clientUris?.[0])).toEqual([
      undefined,
      TEST_ID,
      TEST_ID,
    ]);
  });
});

describe('credentials', () => {
  test('tell when the last of them dies, from the start on and as they change', async () => {
    const expiresAt = Math.floor(Date.now() / 1_000 + 600) * 1_000;
    const { fake, files, ca } = await world();
    const { expiresAt: firstAt } = [...fake.tokens.values()][0]!;
    expect(ca.credentialExpiresAt()).toBe(Math.floor(firstAt / 1_000) * 1_000);
    files.token(fake.token(TEST_ID, { expiresAt }));
    await issue(ca);
    expect(ca.credentialExpiresAt()).toBe(expiresAt);
    files.token('one that does not say');
    await issue(ca).catch(() => undefined);
    expect(ca.credentialExpiresAt()).toBeUndefined();
  });

  test.each([
    ['istiod', true],
    ['istio-csr', false],
  ] as const)(
    'of %s that die hurry the renewal, unless it takes the certificate in service: %s',
    async (name, taken) => {
      let svid: Svid | undefined;
      const { ca } = await world({ name, ownCertificate: () => svid && own(svid) });
      svid = await issue(ca);
      expect(ca.credentialExpiresAt() === undefined).toBe(taken);
    },
  );

  test('that change are told, so that nobody waits for the next attempt', async () => {
    const { fake, files, ca } = await world();
    const told: string[] = [];
    ca.onChange((what) => told.push(what));
    // Watching begins two seconds after the start.
    await new Promise((done) => setTimeout(done, 2_500));
    files.token(fake.token(TEST_ID));
    await until('the news of the token', async () => told.length > 0);
    expect(new Set(told)).toEqual(new Set(['credential']));
  });

  test('that are as they were when first looked at are no news', async () => {
    const [print, look] = [
      jest.spyOn(CredentialSelector.prototype, 'print'),
      jest.spyOn(CredentialSelector.prototype, 'look'),
    ];
    closing({ close: async () => void jest.restoreAllMocks() });
    const fake = closing(await startFakeIstiod());
    const files = new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID));
    const clock = new TestClock(Date.now());
    const { ca, deps } = await openClient(
      files,
      { address: fake.server.address },
      testDeps({ clock }),
    );
    const news: string[] = [];
    ca.onChange((what) => news.push(what));
    await clock.advanceBy(2_000);
    await until('a look', async () => print.mock.calls.length > 1 && look.mock.calls.length > 1);
    await Promise.all([...print.mock.results, ...look.mock.results].map(({ value }) => value));
    await settle();
    expect(news).toEqual([]);
    expect(deps.events.map(({ event }) => event)).not.toContain('credential files changed');
  });

  test('C25 a new root of the CA’s server is taken up by the next call', async () => {
    const { fake, files, ca } = await world();
    await issue(ca);
    const next = await liveCa({ name: 'next' });
    const { port } = fake.server;
    await fake.close();
    const reborn = closing(await startFakeIstiod({ signer: next, port, tokens: fake.tokens }));
    await expect(issue(ca)).rejects.toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      hint: expect.stringContaining('--ca-root'),
    });
    expect(reborn.server.calls).toEqual([]);
    writeFileSync(join(files.dir, 'root-cert.pem'), rootsPem(next, fake.signer));
    await expect(issue(ca)).resolves.toBeDefined();
  });
});
