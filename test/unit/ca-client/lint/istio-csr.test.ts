import { describe, expect, test } from '@jest/globals';
import { derSequence } from '../../../../agent/base/der';
import { errorText } from '../../../../agent/base/errors';
import { parseCertificate } from '../../../../agent/identity/certificate';
import { directEngine } from '../../../../agent/identity/direct-engine';
import {
  EXTENSION,
  encodeBasicConstraints,
  encodeExtension,
  encodeKeyUsage,
  encodePurposes,
  encodeUriNames,
  type KeyUsage,
  PURPOSE,
} from '../../../../agent/identity/extensions';
import { encodeName } from '../../../../agent/identity/name';
import { acceptIssuedChain } from '../../../../agent/identity/svid';
import { lintCsr } from '../../../../ca-client/lint/csr-lint';
import {
  type CsrOptions,
  dnsName,
  HOUR_MS,
  makeCsr,
  makeKey,
  TEST_ID,
  type TestCa,
} from '../../../support/certs';
import { startFakeIstioCsr } from '../../../support/fake-istio-csr';
import { closing, id, openClient, WorkloadFiles } from '../../../support/istio-world';
import { liveCa } from '../../../support/tls-ca';

async function world(clusterId = 'Kubernetes', signer?: TestCa) {
  const fake = closing(await startFakeIstioCsr({ answerAfterMs: 0, ...(signer && { signer }) }));
  const files = new WorkloadFiles().roots(fake.signer).token(fake.token(TEST_ID));
  const { ca } = await openClient(files, {
    name: 'istio-csr',
    address: fake.server.address,
    clusterId,
  });
  const sign = (options: Partial<CsrOptions>, ttlSeconds = 60) => {
    const csrDer = makeCsr({ privateKey: makeKey('ec', 'prime256v1'), ...options });
    return ca.sign({ id, csrDer, ttlSeconds }, AbortSignal.timeout(10_000));
  };
  return { fake, ca, sign };
}

describe('istio-csr', () => {
  test('C29 is asked for a day and gives an hour without a word: what counts is what the certificate says', async () => {
    const { ca } = await world();
    const key = await directEngine.generateKeyPair('ecdsa-p256');
    const csrDer = await directEngine.createCsr(key, id);
    const { certificatesDer } = await ca.sign(
      { id, csrDer, ttlSeconds: 86_400 },
      AbortSignal.timeout(10_000),
    );
    const svid = acceptIssuedChain(
      { id, key, source: ca.name },
      certificatesDer,
      ca.trust.value!,
      Date.now(),
    );
    expect(svid.notAfterAt - svid.notBeforeAt).toBe(HOUR_MS);
    expect(svid.warnings).toEqual(['the leaf has no key usage']);
    // Leaf, intermediate, root; only two of them go to peers.
    expect([certificatesDer.length, svid.chainDer.length]).toEqual([3, 2]);
  });

  const san = (...names: Uint8Array[]) =>
    encodeExtension(EXTENSION.subjectAltName, true, derSequence(...names));
  test.each<[string, Partial<CsrOptions>, string, string]>([
    ['a common name', { subjectDer: encodeName([['CN', 'admin']]) }, 'csr-common-name', 'slow'],
    // The token of the fake does not say whose it is.
    [
      'another identity',
      { extensions: [encodeUriNames(['spiffe://cluster.local/ns/shop/sa/other'], true)] },
      '',
      'unsure',
    ],
    ['a DNS name', { extensions: [san(dnsName('cart.shop'))] }, 'csr-', 'slow'],
    [
      'basic constraints',
      { extensions: [encodeUriNames([TEST_ID], true), encodeBasicConstraints(false)] },
      'csr-',
      'slow',
    ],
  ])(
    'refuses a request with %s as it refuses everything, and the local rules say why',
    async (_, csr, rule, retry) => {
      const { sign } = await world();
      const error = (await sign(csr).catch((caught: unknown) => caught)) as Error & {
        hint: string;
      };
      expect(error).toMatchObject({
        code: 'ERR_CA_REJECTED',
        retry,
        message: expect.stringContaining('UNAUTHENTICATED: request authenticate failure'),
      });
      expect(error.hint).toContain(rule);
    },
  );

  test('says INTERNAL of a request for key usages, and the local rules say why', async () => {
    const { sign } = await world();
    const extensions = [encodeUriNames([TEST_ID], true), encodeKeyUsage(['digitalSignature'])];
    await expect(sign({ extensions })).rejects.toMatchObject({
      code: 'ERR_CA_UNAVAILABLE',
      retry: 'soon',
      hint: expect.stringContaining('cert-manager, behind istio-csr has the rule csr-'),
    });
  });

  const purposes = (...oids: string[]) => ({
    extensions: [encodeUriNames([TEST_ID], true), encodePurposes(oids)],
  });
  const usages = (...names: KeyUsage[]) => ({
    extensions: [encodeUriNames([TEST_ID], true), encodeKeyUsage(names)],
  });
  test.each<[string, Partial<CsrOptions>, string]>([
    ['nothing but its name', {}, 'signed'],
    ['client before server', purposes(PURPOSE.clientAuth, PURPOSE.serverAuth), 'signed'],
    [
      'server before client',
      purposes(PURPOSE.serverAuth, PURPOSE.clientAuth),
      'INTERNAL: failed to sign certificate request',
    ],
    ['client alone', purposes(PURPOSE.clientAuth), 'INTERNAL: failed to sign certificate request'],
    ['any purpose', purposes(PURPOSE.any), 'UNAUTHENTICATED: request authenticate failure'],
    ['key usages', usages('digitalSignature'), 'INTERNAL: failed to sign certificate request'],
    [
      'keyCertSign',
      usages('digitalSignature', 'keyCertSign'),
      'UNAUTHENTICATED: request authenticate failure',
    ],
    ['a signature with SHA-1', { signature: 'ECDSA-SHA1' }, 'signed'],
    [
      'a scheme in capitals',
      { extensions: [encodeUriNames([TEST_ID.replace('spiffe:', 'SPIFFE:')], true)] },
      'signed',
    ],
    [
      'another trust domain',
      { extensions: [encodeUriNames(['spiffe://x/ns/shop/sa/cart'], true)] },
      'UNAUTHENTICATED: request authenticate',
    ],
  ])(
    'answers a request with %s as the real one does, and csr lint says the same',
    async (_, options, want) => {
      const { sign } = await world();
      const answer = await sign(options).then(
        () => 'signed',
        (caught: unknown) => errorText(caught),
      );
      expect(answer).toContain(want);
      const csrDer = makeCsr({ privateKey: makeKey('ec', 'prime256v1'), ...options });
      const errors = lintCsr(csrDer, 'istio-csr', { now: Date.now(), id: TEST_ID }).filter(
        ({ severity }) => severity === 'error',
      );
      expect(errors.length > 0).toBe(want !== 'signed');
    },
  );

  test('warnings of the local rules reach the hint of a refused attempt', async () => {
    const { sign } = await world('elsewhere');
    await expect(sign({})).rejects.toMatchObject({
      hint: expect.stringContaining(
        'istio-csr has a warning by the rule cluster-id: the cluster ID elsewhere is not the default',
      ),
    });
  });

  test('changes its issuer: another one below its roots signs at once, and of a foreign one nothing is handed out', async () => {
    const root = await liveCa();
    const [first, second] = [
      await liveCa({ parent: root, name: 'first' }),
      await liveCa({ parent: root, name: 'second' }),
    ];
    const { fake, sign } = await world('Kubernetes', first);
    const issuerOf = async () => parseCertificate((await sign({})).certificatesDer[0]!).issuer;
    expect(await issuerOf()).toContain('first');
    fake.changeIssuer(second);
    expect(await issuerOf()).toContain('second');
    fake.changeIssuer(await liveCa({ name: 'foreign' }));
    await expect(sign({})).rejects.toThrow(
      'INTERNAL: failed to parse and verify signed certificate from issuer',
    );
  });

  test('refuses a call for another cluster', async () => {
    const { sign } = await world('elsewhere');
    await expect(sign({})).rejects.toMatchObject({ code: 'ERR_CA_REJECTED', retry: 'unsure' });
    await expect((await world('')).sign({})).resolves.toBeDefined();
  });
});
