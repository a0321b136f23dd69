import type { KeyObject } from 'node:crypto';
import {
  contextTag,
  derElement,
  derInteger,
  derOid,
  derSequence,
  derSet,
  derTime,
  TAG,
} from '../../agent/base/der';
import { writePem } from '../../agent/base/pem';
import type { Random } from '../../agent/base/random';
import { certificatesPem } from '../../agent/identity/certificate';
import {
  EXTENSION,
  encodeExtension,
  encodePurposes,
  PURPOSE,
} from '../../agent/identity/extensions';
import { generateKeyPair, privateKeyPem } from '../../agent/identity/keys';
import {
  HOUR_MS,
  issueLeaf,
  makeTestCa,
  randomSerial,
  signDer,
  type TestCa,
  type TestCaOptions,
} from './certs';
import type { ProxyPem } from './envoy-verdicts';
import { seeded } from './seeded';

/** What a CA has, and lists beside it: the world in which a leaf is issued. */
export interface ProxySetWorld {
  readonly name: string;
  readonly signer: TestCa;
  /** Above the leaf, in the order in which it is served. */
  readonly chainDer: readonly Uint8Array[];
  readonly rootsDer: readonly Uint8Array[];
  /** DER; undefined where revocation does not count. `leafSerial` names our own leaf in one of them. */
  readonly lists?: (leafSerial: Uint8Array) => readonly Uint8Array[];
}

export interface MadeSet extends ProxySetWorld {
  readonly leafDer: Uint8Array;
  readonly listsDer: readonly Uint8Array[] | undefined;
  readonly pem: ProxyPem;
}

/** Issues a leaf in a world. */
export async function madeSet(world: ProxySetWorld): Promise<MadeSet> {
  const key = await generateKeyPair('ecdsa-p256');
  const serial = randomSerial();
  const now = Date.now();
  const leafDer = issueLeaf(world.signer, {
    key,
    serial,
    notBeforeAt: now - HOUR_MS,
    notAfterAt: now + 24 * HOUR_MS,
  });
  const listsDer = world.lists?.(serial);
  const pem = {
    keyPem: privateKeyPem(key, 'pkcs8').toString(),
    chainPem: certificatesPem([leafDer, ...world.chainDer]).toString(),
    rootsPem: certificatesPem(world.rootsDer).toString(),
    crlPem: listsDer && listsPem(listsDer).toString(),
  };
  return { ...world, leafDer, listsDer, pem };
}

export function listsPem(listsDer: readonly Uint8Array[]): Buffer {
  return Buffer.concat(listsDer.map((der) => writePem('X509 CRL', der)));
}

export interface MadeListOptions {
  /** Default 1. */
  readonly number?: number;
  readonly revoked?: readonly Uint8Array[];
  readonly thisUpdateAt?: number;
  readonly nextUpdateAt?: number;
  /** DER of extensions in addition. */
  readonly extensions?: readonly Uint8Array[];
  readonly criticalNumber?: boolean;
  /** DER of the extensions of one more entry, of nobody. */
  readonly entryExtensions?: readonly Uint8Array[];
  readonly noKeyId?: boolean;
  /** Signs with another key. */
  readonly signer?: KeyObject;
}

/** A revocation list of `ca`, P-256, right in every way but those that `options` ask for. */
export function makeList(ca: TestCa, options: MadeListOptions = {}): Uint8Array {
  const now = Date.now();
  const {
    thisUpdateAt = now - HOUR_MS,
    nextUpdateAt = now + 24 * HOUR_MS,
    revoked = [],
    extensions = [],
  } = options;
  const algorithm = derSequence(derOid('1.2.840.10045.4.3.2'));
  const keyId = encodeExtension(
    EXTENSION.authorityKeyId,
    false,
    derSequence(derElement(contextTag(0, 'primitive'), ca.keyId)),
  );
  const number = encodeExtension(
    '2.5.29.20',
    options.criticalNumber ?? false,
    derInteger(options.number ?? 1),
  );
  const all = [...(options.noKeyId ? [] : [keyId]), number, ...extensions];
  const entry = (serial: Uint8Array, ...rest: readonly Uint8Array[]) =>
    derSequence(derElement(0x02, serial), derTime(now - HOUR_MS), ...rest);
  const { entryExtensions } = options;
  const entries = [
    ...revoked.map((serial) => entry(serial)),
    ...(entryExtensions ? [entry(randomSerial(), derSequence(...entryExtensions))] : []),
  ];
  const tbs = derSequence(
    derInteger(1),
    algorithm,
    ca.subjectDer,
    derTime(thisUpdateAt),
    derTime(nextUpdateAt),
    ...(entries.length === 0 ? [] : [derSequence(...entries)]),
    derElement(contextTag(0), derSequence(...all)),
  );
  return signDer(tbs, options.signer ?? ca.privateKey, 'ECDSA-SHA256');
}

const flag = (number: number) => derElement(contextTag(number, 'primitive'), Buffer.of(0xff));
const uriPoint = derElement(
  contextTag(0),
  derElement(contextTag(0), derElement(contextTag(6, 'primitive'), Buffer.from('http://x/crl'))),
);
const scope = (critical: boolean, ...parts: readonly Uint8Array[]) =>
  encodeExtension('2.5.29.28', critical, derSequence(...parts));

/** Lists with extensions that Envoy does not take. */
export const BAD_LISTS: Readonly<Record<string, MadeListOptions>> = {
  'IssuingDistributionPoint for CAs alone': { extensions: [scope(true, flag(2))] },
  'IssuingDistributionPoint of a partition': { extensions: [scope(true, uriPoint)] },
  'IssuingDistributionPoint of some reasons': {
    extensions: [scope(true, derElement(contextTag(3, 'primitive'), Buffer.of(0x06, 0x40)))],
  },
  'IssuingDistributionPoint of an indirect list': { extensions: [scope(true, flag(4))] },
  'IssuingDistributionPoint of a partition, not critical': { extensions: [scope(false, uriPoint)] },
  'a critical DeltaCRLIndicator': {
    extensions: [encodeExtension('2.5.29.27', true, derInteger(1))],
  },
  'an unknown critical extension': {
    extensions: [encodeExtension('1.2.3.4', true, derInteger(1))],
  },
  'a critical CRLNumber': { criticalNumber: true },
};

/** Those that it takes. */
export const GOOD_LISTS: Readonly<Record<string, MadeListOptions>> = {
  'IssuingDistributionPoint for user certificates alone': { extensions: [scope(true, flag(1))] },
  'an unknown extension that is not critical': {
    extensions: [encodeExtension('1.2.3.4', false, derInteger(1))],
  },
};

const reason = (critical: boolean) =>
  encodeExtension('2.5.29.21', critical, derElement(0x0a, Buffer.of(1)));
const invalidSince = (critical: boolean) =>
  encodeExtension(
    '2.5.29.24',
    critical,
    derElement(TAG.generalizedTime, Buffer.from('20200101000000Z')),
  );

/** Lists with an entry whose extensions Envoy does not take; and those that it takes. */
export const BAD_ENTRIES: Readonly<Record<string, MadeListOptions>> = {
  'a critical reason': { entryExtensions: [reason(true)] },
  'a critical date': { entryExtensions: [invalidSince(true)] },
};
export const GOOD_ENTRIES: Readonly<Record<string, MadeListOptions>> = {
  'a reason and a date': { entryExtensions: [reason(false), invalidSince(false)] },
};

const DAY_MS = 24 * HOUR_MS;
const ended = () => ({ notBeforeAt: Date.now() - 400 * DAY_MS, notAfterAt: Date.now() - HOUR_MS });
const ahead = () => ({
  notBeforeAt: Date.now() + 2 * DAY_MS,
  notAfterAt: Date.now() + 3_000 * DAY_MS,
});
const living = () => ({
  notBeforeAt: Date.now() - 30 * DAY_MS,
  notAfterAt: Date.now() + 3_000 * DAY_MS,
});

const root = (options: TestCaOptions = {}) => makeTestCa({ ...living(), ...options });
/** The same name and key, certified again. */
const again = (ca: TestCa, options: TestCaOptions) =>
  makeTestCa({ ...living(), privateKey: ca.privateKey, ...options });
const ders = (...cas: readonly TestCa[]) => cas.map(({ certificateDer }) => certificateDer);

/** The cases of the field and their siblings, each as it stands. */
export async function fieldWorlds(): Promise<ProxySetWorld[]> {
  const worlds = [
    rootWorlds,
    likeNameWorlds,
    chainWorlds,
    extensionWorlds,
    listWorlds,
    namesWorlds,
  ];
  return (await Promise.all(worlds.map((make) => make()))).flat();
}

async function rootWorlds(): Promise<ProxySetWorld[]> {
  const worlds: ProxySetWorld[] = [];
  for (const noKeyIds of [false, true]) {
    const live = await root({ noKeyIds });
    for (const [what, dates] of [
      ['ended', ended()],
      ['ahead', ahead()],
    ] as const) {
      const dead = await Promise.all([1, 2, 3].map(() => again(live, { noKeyIds, ...dates })));
      const of = (name: string, ...roots: readonly TestCa[]) =>
        worlds.push({
          name: `field A1 ${what}, ${name}, ${noKeyIds ? 'no key ids' : 'key ids'}`,
          signer: live,
          chainDer: [],
          rootsDer: ders(...roots),
        });
      of('dead first', dead[0]!, live);
      of('live first', live, dead[0]!);
      of('live first of four', live, ...dead);
      of('live last of four', ...dead, live);
      of('alone', dead[0]!);
    }
  }
  const [ours, other] = [await root({ noKeyIds: true }), await root({ noKeyIds: true })];
  worlds.push({
    name: 'another key of the same name first',
    signer: ours,
    chainDer: [],
    rootsDer: ders(other, ours),
  });
  worlds.push({
    name: 'another key of the same name last',
    signer: ours,
    chainDer: [],
    rootsDer: ders(ours, other),
  });
  return worlds;
}

/** Names that BoringSSL takes for one although their bytes differ, and those that it does not. */
async function likeNameWorlds(): Promise<ProxySetWorld[]> {
  const named = (tag: number, text: string) =>
    derSequence(derSet(derSequence(derOid('2.5.4.3'), derElement(tag, Buffer.from(text)))));
  const pairs = {
    'another case': [named(TAG.utf8String, 'Root'), named(TAG.utf8String, 'root')],
    'more spaces': [named(TAG.utf8String, ' root  a '), named(TAG.utf8String, 'root a')],
    'another kind of string': [named(TAG.printableString, 'root'), named(TAG.utf8String, 'root')],
    'a number of another kind': [named(TAG.numericString, '1'), named(TAG.printableString, '1')],
    'another case beyond ASCII': [named(TAG.utf8String, '\u00c9'), named(TAG.utf8String, '\u00e9')],
  } as const;
  const worlds: ProxySetWorld[] = [];
  for (const [name, [ours, like]] of Object.entries(pairs)) {
    const signer = await root({ subjectDer: ours, noKeyIds: true });
    const other = await root({ subjectDer: like, noKeyIds: true });
    const dead = await again(signer, { subjectDer: like, noKeyIds: true, ...ended() });
    const world = (what: string, ...roots: readonly TestCa[]) =>
      worlds.push({
        name: `field A1 ${what} whose name has ${name}`,
        signer,
        chainDer: [],
        rootsDer: ders(...roots),
      });
    world('another key first', other, signer);
    world('another key last', signer, other);
    world('a dead copy first', dead, signer);
  }
  return worlds;
}

/** CAs with what of all verifiers only Envoy looks at. */
async function extensionWorlds(): Promise<ProxySetWorld[]> {
  const policy = derSequence(derOid('1.2.3.4'));
  const mapping = (from: string) => derSequence(derSequence(derOid(from), derOid('1.2.3.5')));
  const explicit = (skip: number) =>
    derSequence(derElement(contextTag(0, 'primitive'), Buffer.of(skip)));
  const values: Readonly<Record<string, readonly [string, Uint8Array]>> = {
    'any purpose': ['2.5.29.37', derSequence(derOid(PURPOSE.any))],
    'a certificate policy': ['2.5.29.32', derSequence(policy)],
    'a certificate policy twice': ['2.5.29.32', derSequence(policy, policy)],
    'no certificate policy': ['2.5.29.32', derSequence()],
    'a policy that must be there': ['2.5.29.36', explicit(0)],
    'a policy that must be there further down': ['2.5.29.36', explicit(2)],
    'policy constraints of nothing': ['2.5.29.36', derSequence()],
    'a policy that is mapped': ['2.5.29.33', mapping('1.2.3.4')],
    'any policy mapped': ['2.5.29.33', mapping('2.5.29.32.0')],
    'a bound of any policy that is no number': ['2.5.29.54', derSequence()],
    'a distribution point': ['2.5.29.31', derSequence(derSequence(uriPoint))],
    'a distribution point that is none': ['2.5.29.31', derInteger(1)],
  };
  const top = await root();
  const worlds: ProxySetWorld[] = [];
  for (const [name, [oid, value]] of Object.entries(values)) {
    const options = { extraExtensions: [encodeExtension(oid, false, value)] };
    const [int, own] = [
      await makeTestCa({ ...living(), parent: top, ...options }),
      await root(options),
    ];
    worlds.push({
      name: `an intermediate with ${name}`,
      signer: int,
      chainDer: ders(int),
      rootsDer: ders(top),
    });
    worlds.push({ name: `a root with ${name}`, signer: own, chainDer: [], rootsDer: ders(own) });
  }
  return worlds;
}

async function chainWorlds(): Promise<ProxySetWorld[]> {
  const [a, b] = [await root({ name: 'A' }), await root({ name: 'B' })];
  const deadB = await again(b, { name: 'B', ...ended() });
  const int = await makeTestCa({ ...living(), parent: a });
  const certify = (parent: TestCa, options: TestCaOptions = {}) =>
    again(int, { parent, name: 'intermediate', ...options });
  const [byB, deadInt] = [await certify(b), await certify(a, ended())];
  const deadA = await again(a, { name: 'A', serial: Buffer.of(7), ...ended() });
  const naming = async (serial: number) =>
    certify(a, { noKeyIds: true, extraExtensions: [authorityKey(a, Buffer.of(serial))] });
  const newA = await again(a, { name: 'A', serial: Buffer.of(8) });
  const purposes = async (...uses: readonly string[]) =>
    certify(a, { extraExtensions: [encodePurposes(uses)] });
  const world = (name: string, chain: readonly TestCa[], roots: readonly TestCa[]) => ({
    name,
    signer: int,
    chainDer: ders(...chain),
    rootsDer: ders(...roots),
  });
  return [
    world('an intermediate', [int], [a]),
    world('an intermediate that is missing', [], [a]),
    world('an intermediate in the bundle alone', [], [a, int]),
    world('an intermediate as the only root', [int], [int]),
    world('a dead intermediate first in the chain', [deadInt, int], [a]),
    world('a dead intermediate last in the chain', [int, deadInt], [a]),
    world('a dead intermediate in the bundle, a living one in the chain', [int], [a, deadInt]),
    world('cross-signed, the known root second', [int, byB], [b]),
    world('cross-signed, the known root first', [byB, int], [b]),
    world('cross-signed, both known', [int, byB], [b, a]),
    world('cross-signed, the ended root first', [byB, int], [deadB, a]),
    world('cross-signed, the ended root second', [int, byB], [deadB, a]),
    world('an intermediate that names the serial number of a dead root', [await naming(7)], [newA]),
    world(
      'an intermediate that names the serial number of a dead root, which is there',
      [await naming(7)],
      [newA, deadA],
    ),
    world(
      'an intermediate that names the serial number of the living root',
      [await naming(8)],
      [deadA, newA],
    ),
    world('an intermediate for any purpose', [await purposes(PURPOSE.any)], [a]),
    world('an intermediate for servers', [await purposes(PURPOSE.serverAuth)], [a]),
    world(
      'an intermediate for both',
      [await purposes(PURPOSE.serverAuth, PURPOSE.clientAuth)],
      [a],
    ),
  ];
}

/** AuthorityKeyIdentifier with issuer and serial number. */
function authorityKey({ keyId, subjectDer }: TestCa, serial: Uint8Array): Uint8Array {
  const primitive = (number: number, bytes: Uint8Array) =>
    derElement(contextTag(number, 'primitive'), bytes);
  const issuer = derElement(contextTag(1), derElement(contextTag(4), subjectDer));
  return encodeExtension(
    EXTENSION.authorityKeyId,
    false,
    derSequence(primitive(0, keyId), issuer, primitive(2, serial)),
  );
}

async function listWorlds(): Promise<ProxySetWorld[]> {
  const top = await root();
  const int = await makeTestCa({ ...living(), parent: top });
  const world = (name: string, lists: ProxySetWorld['lists']): ProxySetWorld => ({
    name: `field A3 ${name}`,
    signer: int,
    chainDer: ders(int),
    rootsDer: ders(top),
    ...(lists && { lists }),
  });
  const [ofRoot, ofInt] = [makeList(top), makeList(int)];
  const now = Date.now();
  const old = makeList(int, { thisUpdateAt: now - 3 * HOUR_MS, nextUpdateAt: now - HOUR_MS });
  const future = makeList(int, { thisUpdateAt: now + HOUR_MS, nextUpdateAt: now + 9 * HOUR_MS });
  const forged = makeList(int, { signer: top.privateKey, thisUpdateAt: now - 60_000 });
  return [
    world('the list of the root alone', () => [ofRoot]),
    world('the list of the intermediate alone', () => [ofInt]),
    world('lists of both', () => [ofRoot, ofInt]),
    world('a list that names our own leaf', (serial) => [
      ofRoot,
      makeList(int, { revoked: [serial] }),
    ]),
    world('a list that has ended', () => [ofRoot, old]),
    world('a list that has ended beside a good one', () => [ofRoot, old, ofInt]),
    world('a list that has not begun', () => [ofRoot, future]),
    world('a list that has not begun beside a good one', () => [ofRoot, ofInt, future]),
    world('a newer list that another key has signed', () => [ofRoot, ofInt, forged]),
    world('a list of the root that has ended', () => [
      makeList(top, { thisUpdateAt: now - 3 * HOUR_MS, nextUpdateAt: now - HOUR_MS }),
      ofInt,
    ]),
  ];
}

/** Names that just fit, and those that do not. */
async function namesWorlds(): Promise<ProxySetWorld[]> {
  const signer = await root();
  const shared = await root();
  const others = async (count: number) => {
    const made: TestCa[] = [];
    for (let index = 0; index < count; index += 1)
      made.push(
        await again(shared, {
          name: `Corporate Root Certification Authority ${index} of Example Group`,
        }),
      );
    return made;
  };
  const many = await others(700);
  const world = (count: number) => ({
    name: `field A8 ${count} roots`,
    signer,
    chainDer: [],
    rootsDer: ders(signer, ...many.slice(0, count - 1)),
  });
  return [world(600), world(701)];
}

/** Repeatable sets of everything that the cases of the field are made of, in any mixture. */
export async function generatedWorlds(count: number, seed: number): Promise<ProxySetWorld[]> {
  const random = seeded(seed);
  const worlds: ProxySetWorld[] = [];
  for (let index = 0; index < count; index += 1)
    worlds.push(await generatedWorld(`generated ${seed}/${index}`, random));
  return worlds;
}

async function generatedWorld(name: string, random: Random): Promise<ProxySetWorld> {
  const maybe = (chance: number) => random() < chance;
  const noKeyIds = maybe(0.3);
  const top = await root({ noKeyIds });
  const dates = [ended, ahead, living];
  const copies = async (of: (options: TestCaOptions) => Promise<TestCa>, chance: number) => {
    const made: TestCa[] = [];
    while (made.length < 3 && maybe(chance))
      made.push(await of({ noKeyIds: maybe(0.3), ...pick(dates, random)() }));
    return made;
  };
  const roots = [
    ...(maybe(0.9) ? [top] : []),
    ...(await copies((options) => again(top, options), 0.5)),
  ];
  if (maybe(0.3)) roots.push(await root({ noKeyIds: true }));
  if (maybe(0.5)) roots.push(await root({ name: 'unrelated', ...pick(dates, random)() }));
  const chain: TestCa[] = [];
  let signer = top;
  if (maybe(0.6)) {
    const int = await makeTestCa({ ...living(), parent: top, noKeyIds });
    const other = await root({ name: 'other' });
    if (maybe(0.4)) roots.push(other);
    chain.push(...(maybe(0.9) ? [int] : []));
    chain.push(
      ...(await copies(
        (options) =>
          again(int, { ...options, parent: maybe(0.5) ? top : other, name: 'intermediate' }),
        0.4,
      )),
    );
    if (maybe(0.1)) roots.push(int);
    signer = int;
  }
  const lists = maybe(0.4)
    ? generatedLists(signer === top ? [top] : [top, signer], random)
    : undefined;
  const rootsDer = ders(...shuffled(roots.length === 0 ? [top] : roots, random));
  return {
    name,
    signer,
    chainDer: ders(...shuffled(chain, random)),
    rootsDer,
    ...(lists && { lists }),
  };
}

function generatedLists(
  cas: readonly TestCa[],
  random: Random,
): NonNullable<ProxySetWorld['lists']> {
  const now = Date.now();
  const times = [
    {},
    {},
    { thisUpdateAt: now - 3 * HOUR_MS, nextUpdateAt: now - HOUR_MS },
    { thisUpdateAt: now + HOUR_MS, nextUpdateAt: now + 9 * HOUR_MS },
    { thisUpdateAt: now - 2 * HOUR_MS },
  ];
  const make: ((serial: Uint8Array) => Uint8Array)[] = [];
  for (const ca of cas) {
    const count = Math.floor(random() * 3);
    for (let index = 0; index < count; index += 1) {
      const options = { ...pick(times, random), noKeyId: random() < 0.3 };
      const revokes = random() < 0.1;
      make.push((serial) => makeList(ca, { ...options, ...(revokes && { revoked: [serial] }) }));
    }
  }
  const all = shuffled(make.length === 0 ? [() => makeList(cas[0]!)] : make, random);
  return (serial) => all.map((each) => each(serial));
}

function pick<T>(among: readonly T[], random: Random): T {
  return among[Math.floor(random() * among.length)]!;
}

function shuffled<T>(values: readonly T[], random: Random): T[] {
  return values
    .map((value) => ({ value, at: random() }))
    .sort((a, b) => a.at - b.at)
    .map(({ value }) => value);
}
