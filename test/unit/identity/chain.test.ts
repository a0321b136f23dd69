import { generateKeyPairSync } from 'node:crypto';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { contextTag, derElement, derSequence } from '../../../agent/base/der';
import { type Certificate, parseCertificate } from '../../../agent/identity/certificate';
import {
  isSelfSigned,
  type VerifiedChain,
  verifyChain,
  verifyChainAside,
} from '../../../agent/identity/chain';
import {
  EXTENSION,
  encodeExtension,
  encodePurposes,
  PURPOSE,
} from '../../../agent/identity/extensions';
import { generateKeyPair, type KeyPair } from '../../../agent/identity/keys';
import { encodeName } from '../../../agent/identity/name';
import { SignatureChecker, signatureWeight } from '../../../agent/identity/signature-checker';
import {
  dnsName,
  HOUR_MS,
  issueLeaf,
  type LeafOptions,
  makeTestCa,
  TEST_NOW,
  type TestCa,
  type TestCaOptions,
  uriConstraints,
} from '../../support/certs';
import { cpuMs } from '../../support/load';
import { outcome } from '../../support/outcome';

let root: TestCa;
let key: KeyPair;
beforeAll(async () => {
  root = await makeTestCa();
  key = await generateKeyPair('ecdsa-p256');
});

/** Verifies a leaf of the last of `cas`, the first of which is the root. The subjects of the path, or field and rule. */
function verify(
  cas: readonly TestCa[],
  options: Partial<LeafOptions> = {},
  extra: readonly Uint8Array[] = [],
) {
  const leaf = parseCertificate(issueLeaf(cas.at(-1)!, { key, ...options }));
  const pool = [...cas.slice(1).map(({ certificateDer }) => certificateDer), ...extra].map((der) =>
    parseCertificate(der),
  );
  const roots = [parseCertificate(cas[0]!.certificateDer)];
  return outcome(() =>
    verifyChain(leaf, pool, roots, TEST_NOW)
      .path.slice(1)
      .map(({ subject }) => subject.replace('O=cluster.local, CN=', '')),
  );
}

/** A chain of CAs, each made with its options under the one before. */
async function line(...options: readonly TestCaOptions[]): Promise<TestCa[]> {
  const cas: TestCa[] = [];
  for (const [index, each] of options.entries())
    cas.push(await makeTestCa({ name: `ca${index}`, parent: cas.at(-1), ...each }));
  return cas;
}

const blames = (index: number, rule: string, role = index === 0 ? 'root' : 'intermediate') => ({
  field: `${role} "O=cluster.local, CN=ca${index}"`,
  rule,
});

describe('depth', () => {
  test('a path of root, six intermediates and leaf holds', async () =>
    expect(verify(await line(...Array(7).fill({})))).toEqual([
      'ca6',
      'ca5',
      'ca4',
      'ca3',
      'ca2',
      'ca1',
    ]));

  test('one more does not', async () =>
    expect(verify(await line(...Array(8).fill({})))).toMatchObject({ field: 'chain' }));
});

describe('path length', () => {
  const rule = (limit: number) => `must not have more than ${limit} intermediates below it`;
  test.each<[string, TestCaOptions[], unknown]>([
    ['0 over a leaf', [{ pathLength: 0 }], []],
    ['0 over an intermediate', [{ pathLength: 0 }, {}], blames(0, rule(0))],
    ['1 over one', [{ pathLength: 1 }, { pathLength: 0 }], ['ca1']],
    ['1 over two', [{ pathLength: 1 }, {}, {}], blames(0, rule(1))],
    ['0 in the middle', [{}, { pathLength: 0 }, {}], blames(1, rule(0))],
    ['2 over two', [{ pathLength: 2 }, { pathLength: 1 }, { pathLength: 0 }], ['ca2', 'ca1']],
  ])('%s', async (_, options, want) => expect(verify(await line(...options))).toEqual(want));

  test('does not count self-issued certificates, such as those of a key rollover', async () => {
    const [top] = await line({ pathLength: 0 });
    const rollover = await makeTestCa({ name: 'ca0', parent: top });
    expect(verify([top!, rollover])).toEqual(['ca0']);
  });
});

describe('who may sign', () => {
  const rule = 'must be a CA that may sign certificates';
  test.each<[string, TestCaOptions[], unknown]>([
    ['an intermediate without CA:TRUE', [{}, { isCa: false }], blames(1, rule)],
    ['an intermediate without keyCertSign', [{}, { keyUsage: ['cRLSign'] }], blames(1, rule)],
    [
      'an intermediate without key usage, as RFC 5280 allows',
      [{}, { keyUsage: undefined }],
      ['ca1'],
    ],
    ['a root without CA:TRUE', [{ isCa: false }], blames(0, rule)],
    ['a root of version 1', [{ version: undefined }], blames(0, rule)],
    [
      'an expired intermediate',
      [{}, { notAfterAt: TEST_NOW - HOUR_MS }],
      blames(1, 'must not be expired: it ended at 2025-12-31T23:00:00.000Z'),
    ],
    [
      'an intermediate of the future',
      [{}, { notBeforeAt: TEST_NOW + HOUR_MS }],
      blames(1, 'must be valid now: it begins at 2026-01-01T01:00:00.000Z'),
    ],
    [
      'an intermediate signed with SHA-1',
      [{}, { signature: 'ECDSA-SHA1' }],
      blames(0, 'must sign with ECDSA or RSA and SHA-256, SHA-384 or SHA-512, not ECDSA-SHA1'),
    ],
    [
      'a root signed with SHA-1, whose signature proves nothing anyway',
      [{ signature: 'ECDSA-SHA1' }],
      [],
    ],
    [
      'an unknown critical extension',
      [{}, { extraExtensions: [encodeExtension('1.2.3.4', true, derSequence())] }],
      blames(1, 'must not have unknown critical extensions: 1.2.3.4'),
    ],
    [
      'both purposes',
      [{}, { extraExtensions: [encodePurposes([PURPOSE.serverAuth, PURPOSE.clientAuth])] }],
      ['ca1'],
    ],
    ['any purpose', [{}, { extraExtensions: [encodePurposes([PURPOSE.any])] }], ['ca1']],
    [
      'one purpose only',
      [{}, { extraExtensions: [encodePurposes([PURPOSE.serverAuth])] }],
      blames(1, 'must allow serverAuth and clientAuth where it has extended key usages'),
    ],
    [
      'a root of one purpose only',
      [{ extraExtensions: [encodePurposes([PURPOSE.clientAuth])] }],
      blames(0, 'must allow serverAuth and clientAuth where it has extended key usages'),
    ],
  ])('%s', async (_, options, want) => expect(verify(await line(...options))).toEqual(want));
});

describe('where X509-SVID section 4.3 is held to', () => {
  const rule = 'must have the key usage keyCertSign';
  test.each<[string, TestCaOptions[], unknown]>([
    [
      'field E14 an intermediate without key usage is none',
      [{}, { keyUsage: undefined }],
      blames(1, rule),
    ],
    ['nor the one above it', [{}, { keyUsage: undefined }, {}], blames(1, rule)],
    ['nor the one below it', [{}, {}, { keyUsage: undefined }], blames(2, rule)],
    ['one with keyCertSign alone is', [{}, { keyUsage: ['keyCertSign'] }], 'ca1'],
    [
      'a root without key usage is what the bundle says that it is',
      [{ keyUsage: undefined }, {}],
      'ca1',
    ],
  ])('%s', async (_, options, want) => {
    const cas = await line(...options);
    const [leaf, ...pool] = [issueLeaf(cas.at(-1)!, { key }), ...cas.at(-1)!.intermediatesDer].map(
      (der) => parseCertificate(der),
    );
    const roots = [parseCertificate(cas[0]!.certificateDer)];
    const name = ({ path }: VerifiedChain) => path[1]!.subject.replace('O=cluster.local, CN=', '');
    const rules = { checker: new SignatureChecker(), keyCertSignRequired: true };
    expect(outcome(() => name(verifyChain(leaf!, pool, roots, TEST_NOW, rules)))).toEqual(want);
    const aside = await verifyChainAside(leaf!, pool, roots, TEST_NOW, {
      ...rules,
      checker: new SignatureChecker(),
    }).then(name, (caught) =>
      outcome(() => {
        throw caught;
      }),
    );
    expect(aside).toEqual(want);
  });

  test('another path that keeps the rule is taken', async () => {
    const [top, lacking] = (await line({}, { keyUsage: undefined })) as [TestCa, TestCa];
    const right = await makeTestCa({ name: 'ca1', parent: top, privateKey: lacking.privateKey });
    const leaf = parseCertificate(issueLeaf(lacking, { key }));
    const pool = [lacking, right].map(({ certificateDer }) => parseCertificate(certificateDer));
    const { path } = verifyChain(leaf, pool, [parseCertificate(top.certificateDer)], TEST_NOW, {
      keyCertSignRequired: true,
    });
    expect(path[1]).toBe(pool[1]);
  });
});

describe('URI name constraints', () => {
  const constrained = (permitted: readonly string[], excluded: readonly string[] = []) => ({
    extraExtensions: [uriConstraints(permitted, excluded)],
  });
  const td = (host: string) => ({ uris: [`spiffe://${host}/ns/a/sa/b`] });
  const not = (uri: string) => ({ rule: `must permit ${uri} by its name constraints` });
  test.each<[string, TestCaOptions, Partial<LeafOptions>, unknown]>([
    ['the very host', constrained(['example.org']), td('example.org'), ['ca1']],
    ['another case of it', constrained(['Example.ORG']), td('example.org'), ['ca1']],
    [
      'a host below it',
      constrained(['example.org']),
      td('a.example.org'),
      not('spiffe://a.example.org/ns/a/sa/b'),
    ],
    ['a host below a dot', constrained(['.example.org']), td('a.b.example.org'), ['ca1']],
    [
      'the host of a dot itself',
      constrained(['.example.org']),
      td('example.org'),
      not('spiffe://example.org/ns/a/sa/b'),
    ],
    [
      'a host that only ends alike',
      constrained(['.example.org']),
      td('badexample.org'),
      not('spiffe://badexample.org/ns/a/sa/b'),
    ],
    ['one of two', constrained(['x', 'example.org']), td('example.org'), ['ca1']],
    [
      'an excluded host',
      constrained([], ['example.org']),
      td('example.org'),
      { rule: 'must not exclude spiffe://example.org/ns/a/sa/b by its name constraints' },
    ],
    [
      'a host excluded from a permitted domain',
      constrained(['.example.org'], ['a.example.org']),
      td('a.example.org'),
      { rule: expect.stringContaining('must not exclude') },
    ],
    ['another host than the excluded', constrained([], ['other']), td('example.org'), ['ca1']],
    [
      'an empty constraint, which permits nobody',
      constrained(['']),
      td('example.org'),
      { rule: expect.stringContaining('must permit') },
    ],
    [
      'an empty exclusion, which excludes everybody',
      constrained([], ['']),
      td('example.org'),
      { rule: expect.stringContaining('must not exclude') },
    ],
    [
      'a URI without a host',
      constrained(['example.org']),
      { uris: ['urn:example'] },
      { rule: expect.stringContaining('must permit') },
    ],
    [
      'a URI without a host, and an exclusion',
      constrained([], ['example.org']),
      { uris: ['urn:example'] },
      { rule: expect.stringContaining('must not exclude') },
    ],
    [
      'a URI with a user that looks like the host',
      constrained(['example.org']),
      { uris: ['spiffe://example.org@evil/x'] },
      { rule: expect.stringContaining('must permit') },
    ],
    [
      'a DNS name, which they do not speak of',
      constrained(['example.org']),
      { ...td('example.org'), otherNames: [dnsName('evil')] },
      ['ca1'],
    ],
  ])('%s', async (_, options, leaf, want) => {
    const found = verify(await line({}, options), leaf);
    if (Array.isArray(want)) expect(found).toEqual(want);
    else expect(found).toMatchObject(want as object);
  });

  test('reach through intermediates', async () => {
    const cas = await line({}, constrained(['example.org']), {});
    expect(verify(cas, td('example.org'))).toEqual(['ca2', 'ca1']);
    expect(verify(cas, td('example.com'))).toEqual(
      blames(1, 'must permit spiffe://example.com/ns/a/sa/b by its name constraints'),
    );
  });

  const dnsConstraint = (name: Uint8Array) =>
    encodeExtension(
      EXTENSION.nameConstraints,
      true,
      derSequence(derElement(contextTag(0), derSequence(name))),
    );

  test('on other kinds of name refuse who carries one, and leave others alone', async () => {
    const cas = await line({}, { extraExtensions: [dnsConstraint(dnsName('example.org'))] });
    expect(verify(cas)).toEqual(['ca1']);
    expect(verify(cas, { otherNames: [dnsName('a.example.org')] })).toEqual(
      blames(1, 'must not constrain dns names, which are not supported here'),
    );
    const directory = derElement(contextTag(4), encodeName([['O', 'cluster.local']]));
    const named = await line({}, { extraExtensions: [dnsConstraint(directory)] });
    expect(verify(named)).toEqual(['ca1']);
    expect(verify(named, { subjectDer: encodeName([['O', 'x']]) })).toEqual(
      blames(1, 'must not constrain directory names, which are not supported here'),
    );
  });

  test('beyond any use are not compared', async () => {
    const cas = await line({}, constrained(Array.from({ length: 100 }, (_, index) => `h${index}`)));
    const uris = Array.from({ length: 100 }, (_, index) => `spiffe://h${index}/x`);
    expect(verify(cas, { uris })).toEqual(blames(1, 'must not have that many name constraints'));
  });
});

describe('search', () => {
  test('goes round a candidate that leads nowhere', async () => {
    const good = await makeTestCa({ name: 'twin', parent: root });
    const lost = await makeTestCa({
      name: 'twin',
      parent: await makeTestCa({ name: 'elsewhere' }),
    });
    const expired = await makeTestCa({
      name: 'twin',
      privateKey: good.privateKey,
      parent: root,
      notAfterAt: TEST_NOW - HOUR_MS,
    });
    expect(verify([root, good], {}, [lost.certificateDer, expired.certificateDer])).toEqual([
      'twin',
    ]);
  });

  test('does not run in circles', async () => {
    const a = await makeTestCa({ name: 'a' });
    const b = await makeTestCa({ name: 'b', parent: a });
    const loop = await makeTestCa({ name: 'a', privateKey: a.privateKey, parent: b });
    expect(verify([root, b], {}, [loop.certificateDer])).toEqual({
      field: 'chain',
      rule: expect.stringContaining('must verify to a trusted root'),
    });
  });

  test('takes bounded time where everybody has signed everybody', async () => {
    const names = Array.from({ length: 15 }, (_, index) => `c${index}`);
    const heads = await Promise.all(names.map((name) => makeTestCa({ name })));
    const pool = await Promise.all(
      heads.flatMap((parent) =>
        heads.map((head, index) =>
          makeTestCa({ name: names[index]!, privateKey: head.privateKey, parent }),
        ),
      ),
    );
    const startedAt = cpuMs();
    const found = verify(
      [root, heads[0]!],
      {},
      pool.map(({ certificateDer }) => certificateDer),
    );
    expect(found).toMatchObject({
      field: 'chain',
      rule: expect.stringMatching(/^must verify within|^must verify to/),
    });
    expect(cpuMs() - startedAt).toBeLessThan(3000);
  });

  test('stops at its cap of signature checks', async () => {
    const twins = await Promise.all(
      Array.from({ length: 300 }, () => makeTestCa({ name: 'twin', noKeyIds: true })),
    );
    const leaf = parseCertificate(issueLeaf(root, { key, issuerDer: twins[0]!.subjectDer }));
    const roots = twins.map(({ certificateDer }) => parseCertificate(certificateDer));
    expect(outcome(() => verifyChain(leaf, [], roots, TEST_NOW))).toEqual({
      field: 'chain',
      rule: 'must verify with the work of 256 P-256 signatures',
    });
  });

  describe('field E4: certificates of one name without key identifiers', () => {
    const count = 40;
    const dearKey = () => generateKeyPairSync('ec', { namedCurve: 'P-521' }).privateKey;
    let certificates: Certificate[];
    beforeAll(async () => {
      // Each signed by the one before with a dear key, as a stranger makes them.
      const cas = [await makeTestCa({ name: 'root', noKeyIds: true, privateKey: dearKey() })];
      while (cas.length < count)
        cas.push(
          await makeTestCa({
            name: 'root',
            noKeyIds: true,
            privateKey: dearKey(),
            parent: cas.at(-1),
          }),
        );
      certificates = cas.map(({ certificateDer }) => parseCertificate(certificateDer));
    });

    /** The issuers whose keys were used. */
    const spied = (checker: SignatureChecker) => {
      const issuers: Certificate[] = [];
      const isSignedBy = checker.isSignedBy.bind(checker);
      checker.isSignedBy = (certificate, issuer) => {
        issuers.push(issuer);
        return isSignedBy(certificate, issuer);
      };
      return issuers;
    };

    test('use no key but those of roots, and each once for a certificate', () => {
      const checker = new SignatureChecker(count + 1);
      const used = spied(checker);
      const leaf = parseCertificate(issueLeaf(root, { key, signer: dearKey(), noKeyIds: true }));
      const roots = [parseCertificate(root.certificateDer)];
      expect(outcome(() => verifyChain(leaf, certificates, roots, TEST_NOW, { checker }))).toEqual({
        field: expect.stringMatching(/^root|^intermediate/),
        rule: 'must have signed what names it as issuer',
      });
      expect(new Set(used)).toEqual(new Set(roots));
    });

    test('do not stand in the way of a good path among them', async () => {
      const [middle, head] = [
        await makeTestCa({ name: 'root', noKeyIds: true, parent: root }),
        parseCertificate(root.certificateDer),
      ];
      const leaf = parseCertificate(issueLeaf(middle, { key, noKeyIds: true }));
      const pool = [...certificates, parseCertificate(middle.certificateDer)];
      expect(verifyChain(leaf, pool, [head], TEST_NOW).path).toEqual([leaf, pool.at(-1)]);
      await expect(
        verifyChainAside(leaf, pool, [head], TEST_NOW, { checker: new SignatureChecker() }),
      ).resolves.toMatchObject({
        root: head,
      });
    });

    test('cost in threads of the pool what they cost here', async () => {
      const leaf = parseCertificate(issueLeaf(root, { key, noKeyIds: true }));
      const roots = [parseCertificate(root.certificateDer)];
      const rule = 'must verify with the work of 3 P-256 signatures';
      await expect(
        verifyChainAside(leaf, certificates, roots, TEST_NOW, { checker: new SignatureChecker(3) }),
      ).rejects.toMatchObject({
        rule,
      });
    });
  });

  test.each([
    ['P-256', { kind: 'ec', bits: 256 }, 1],
    ['P-384', { kind: 'ec', bits: 384 }, 9],
    ['P-521', { kind: 'ec', bits: 521 }, 20],
    ['RSA 2048', { kind: 'rsa', bits: 2_048 }, 1],
    ['RSA 8192', { kind: 'rsa', bits: 8_192 }, 4],
  ] as const)('a signature of %s weighs what it costs', (_, publicKey, weight) =>
    expect(signatureWeight(publicKey)).toBe(weight),
  );

  test('finds the root that key identifiers point to first, among 300 of its name', async () => {
    const twins = await Promise.all(
      Array.from({ length: 300 }, () => makeTestCa({ name: 'twin' })),
    );
    const roots = twins.map(({ certificateDer }) => parseCertificate(certificateDer));
    const leaf = parseCertificate(issueLeaf(twins[299]!, { key }));
    expect(verifyChain(leaf, [], roots, TEST_NOW).root).toBe(roots[299]);
  });

  test('a key identifier that contradicts its issuer refuses it, as OpenSSL and Envoy do', () =>
    expect(verify([root], { authorityKeyId: Buffer.alloc(20) })).toEqual({
      field: 'root "O=cluster.local, CN=root"',
      rule: 'must have signed what names it as issuer; their key identifiers differ',
    }));
});

describe('of several good paths', () => {
  const at = (hours: number) => TEST_NOW + hours * HOUR_MS;
  const proven = (leaf: Uint8Array, pool: readonly TestCa[], roots: readonly TestCa[]) => {
    const read = (ca: TestCa) => parseCertificate(ca.certificateDer);
    const {
      path,
      root: found,
      notAfterAt,
    } = verifyChain(parseCertificate(leaf), pool.map(read), roots.map(read), TEST_NOW);
    return {
      ends: (notAfterAt - TEST_NOW) / HOUR_MS,
      root: found.subject.replace('O=cluster.local, CN=', ''),
      depth: path.length,
    };
  };

  test('field A2a the one to the renewed root counts, in whatever order the bundle has them', async () => {
    const renewed = await makeTestCa({ name: 'r', notAfterAt: at(1_000) });
    const old = await makeTestCa({ name: 'r', privateKey: renewed.privateKey, notAfterAt: at(2) });
    const leaf = issueLeaf(renewed, { key });
    for (const roots of [
      [old, renewed],
      [renewed, old],
    ]) {
      expect(proven(leaf, [], roots)).toMatchObject({ ends: 24 });
    }
  });

  test('field A2b the one through the younger certificate of a cross-signed signer counts', async () => {
    const old = await makeTestCa({ name: 'old', notAfterAt: at(3) });
    const next = await makeTestCa({ name: 'next', notAfterAt: at(1_000) });
    const byOld = await makeTestCa({ name: 'signer', parent: old, notAfterAt: at(3) });
    const byNext = await makeTestCa({ name: 'signer', privateKey: byOld.privateKey, parent: next });
    const leaf = issueLeaf(byOld, { key });
    expect(proven(leaf, [byOld, byNext], [old, next])).toEqual({
      ends: 24,
      root: 'next',
      depth: 2,
    });
    expect(proven(leaf, [byNext, byOld], [next, old])).toEqual({
      ends: 24,
      root: 'next',
      depth: 2,
    });
    expect(proven(leaf, [byOld, byNext], [old])).toEqual({ ends: 3, root: 'old', depth: 2 });
  });

  test('a longer one that breaks a rule does not count', async () => {
    const old = await makeTestCa({ name: 'old', notAfterAt: at(3) });
    const next = await makeTestCa({ name: 'next', pathLength: 0 });
    const byOld = await makeTestCa({ name: 'signer', parent: old, notAfterAt: at(3) });
    const above = await makeTestCa({ name: 'old', privateKey: old.privateKey, parent: next });
    expect(proven(issueLeaf(byOld, { key }), [byOld, above], [next, old])).toEqual({
      ends: 3,
      root: 'old',
      depth: 2,
    });
  });

  test('of those that end together the shortest is taken', async () => {
    const top = await makeTestCa({ name: 'top' });
    const crossed = await makeTestCa({ name: 'root', privateKey: root.privateKey, parent: top });
    expect(proven(issueLeaf(root, { key }), [crossed], [top, root])).toEqual({
      ends: 24,
      root: 'root',
      depth: 1,
    });
  });

  test('one that was found stands when the search for a better one meets its bounds', async () => {
    const short = await makeTestCa({ name: 'twin', notAfterAt: at(1) });
    const strangers = await Promise.all(
      Array.from({ length: 300 }, () => makeTestCa({ name: 'twin', noKeyIds: true })),
    );
    expect(proven(issueLeaf(short, { key }), [], [...strangers, short])).toMatchObject({ ends: 1 });
  });
});

test('a root is self-signed, an intermediate and a root with a forged signature are not', async () => {
  const middle = await makeTestCa({ parent: root });
  const imposter = await makeTestCa({
    name: 'root',
    parent: { ...root, privateKey: middle.privateKey },
  });
  const answer = (ca: TestCa) =>
    isSelfSigned(parseCertificate(ca.certificateDer), new SignatureChecker());
  expect([root, middle, imposter].map(answer)).toEqual([true, false, false]);
});
