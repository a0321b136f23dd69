import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { parseKeySet, TOKEN_ALGORITHMS } from '../../agent/jwt/key-set';
import { compile } from '../../agent/policy/compile';
import { evaluate, type Verdict } from '../../agent/policy/evaluate/evaluate';
import type { PolicyRequest } from '../../agent/policy/evaluate/request';
import { readMesh } from '../../agent/policy/read-mesh';
import { readPolicies } from '../../agent/policy/read-policies';
import type { JsonObject } from '../../agent/policy/resources/resource';
import { ResourceIndex } from '../../agent/policy/select';
import { describeWith } from '../support/peers';
import { type EnvoyAnswer, startPolicyEnvoy } from '../support/policy-envoy';
import { seeded } from '../support/seeded';
import { tempDir } from '../support/temp-dir';
import { makeTokenIssuer } from '../support/tokens';

const FULL = process.env.KEYTURN_TEST === 'full';
const SETS = FULL ? 100 : 20;
const REQUESTS = FULL ? 100 : 50;

const { mesh, shared, sets } = JSON.parse(
  gunzipSync(readFileSync(join(__dirname, '../recorded/istiod-policies.json.gz'))).toString(),
);
const issuer = makeTokenIssuer();
const random = seeded(12);
const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!;
const asFile = (name: string, documents: readonly JsonObject[]) => ({
  name,
  bytes: Buffer.from(documents.map((each) => JSON.stringify(each)).join('\n---\n')),
});

/** Each set has an address of its own; runs beside each other have others. */
const net = 10 + (process.pid % 200);
const addressOf = (index: number) => `127.${net}.${index}.1`;

/** Every token can be signed here, and addresses are such as a client has on this machine. */
function adapted(
  set: { readonly documents: readonly JsonObject[] },
  address: string,
): JsonObject[] {
  const text = JSON.stringify(set.documents)
    .replaceAll('192.0.2.1', address)
    .replaceAll('10.0.0.0/8', '127.0.0.2/31')
    .replaceAll('192.168.1.7', '127.0.0.7');
  return JSON.parse(text, (key, value) => (key === 'jwks' ? issuer.jwks() : value));
}

const token = () =>
  issuer.token({
    claims: {
      iss: pick(['https://iss.example', 'https://b.example', 'a@example', 'https://a/b', 'other']),
      sub: pick(['sub', 'c', 'x']),
      aud: pick(['aud', 'aud2', ['aud', 'other'], 'no']),
      azp: pick(['azp', 'azp-2']),
      groups: pick([['admins', 'x'], 'admins', 7]),
      a: pick([{ b: 'deep' }, 'deep']),
      roles: 'r1 r2',
      ...pick([{}, {}, {}, { exp: 1_000_000 }]),
    },
    ...pick([{}, {}, {}, {}, { signature: () => Buffer.alloc(64) }]),
  });

const word = () => pick(['shop', 'cart', 'a.b', 'x-y_z', 'x-y', 'pay+ment', 'a[0]', 'w^$']);
const path = () =>
  pick([
    () => `/${word()}`,
    () => `/${word()}/x`,
    () => `/${word()}?c=d&access_token=${token()}`,
    () => `/${word()}?tok=${token()}`,
    () => pick(['/t/a/end', '/t//end', '/t/a/b/end', '/T/a/end', '/t/a%20b/end', '/t/a=b/end']),
    () => pick(['/v1/q/x/', '/v1/q/x/a/b', '/v1/q/x', '/a/b?c=d', '/a/b', '/a/./b', '/a//b']),
    () =>
      pick(['/a/../shop', '/a/%2e%2E/cart', '/a%2Fb', '/a\\b', '/%73hop', '/a/..', '/', '/..%2f']),
    () =>
      pick([
        '/shop#x',
        '/shop?a#b',
        '/%00',
        '/%zz',
        '/a/b/.',
        '/a;b',
        '/a"b',
        "/a'b",
        '/~x',
        '/%7ex',
      ]),
  ])();

const headers = (): (readonly [string, string])[] => [
  ...pick([[], [['authorization', `Bearer ${token()}`] as const]]),
  ...pick([[], [], [['x-token', `Bearer ${token()}`] as const]]),
  ...pick([[], [], [['cookie', `z=1; c=${token()}`] as const]]),
  ...pick([[], [['x-a', word()] as const], [['x-a', word()] as const, ['x-a', word()] as const]]),
  ...pick([[], [['x-env', pick(['prod', 'prod-1', 'a-prod', ''])] as const]]),
  ...pick([[], [], [['x-sub', 'sub'] as const]]),
  ...pick([
    [],
    [
      [
        'x-forwarded-for',
        pick([
          '127.0.0.2',
          '127.0.0.7, 9.9.9.9',
          '1.1.1.1, 127.0.0.3',
          '2001:db8::9',
          '::1',
          '::ffff:127.0.0.2',
          'junk',
        ]),
      ] as const,
    ],
  ]),
];

function request(localIp: string): PolicyRequest {
  const td = () => pick(['td1', 'old-td', 'cluster.local', 'td1', 'other']);
  return {
    from: pick([
      undefined,
      `spiffe://${td()}/ns/${pick(['shop', 'cart', 'a.b', 'x-y'])}/sa/${pick(['shop', 'cart', 'a.b', 'x-y'])}`,
      'spiffe://td1/ns/shop/sa/cart',
    ]),
    port: pick([8080, 8080, 8080, 9090, 9999]),
    method: pick(['GET', 'POST', 'PATCH', 'OPTIONS']),
    path: path(),
    host: pick([
      'a.example',
      'A.Example:8080',
      'b.example:8080',
      'api.example',
      'x.api.example',
      'z',
    ]),
    headers: headers(),
    ip: pick(['127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.7', '127.0.0.9']),
    localIp,
    serverName: pick(['', 'www.example.com', 'x.www.example.com', 'www.example.com.a']),
  };
}

async function verify(jwks: string, jwt: string): Promise<boolean> {
  const keys = await parseKeySet(jwks, 'jwks', TOKEN_ALGORITHMS);
  return keys.verify(jwt).then(
    () => true,
    () => false,
  );
}

/** Undefined where two providers of one issuer disagree: then Envoy's answer depends on a hash. */
function judged(listener: JsonObject, one: PolicyRequest): Promise<Verdict | undefined> {
  return evaluate(listener, one, { verify, now: Date.now() / 1_000 }).catch((caught) => {
    if (/verify differently/.test(caught.message)) return undefined;
    throw caught;
  });
}

/** What both say, in one form. */
function said({ kind, status, decidedBy, asks, reason }: Verdict) {
  if (asks.length > 0) return { status: 'ext_authz' };
  if (kind === 'reset') return { status: undefined, by: '' };
  if (status === undefined) return { status: 200, by: '' };
  return { status, by: status === 403 && !/Jwt/.test(reason) ? (decidedBy ?? 'none') : '' };
}

function answered({ status, details }: EnvoyAnswer, asks: boolean) {
  if (asks && /^ext_authz/.test(details)) return { status: 'ext_authz' };
  if (asks && status === undefined) return { status: 'ext_authz' };
  const by = /^rbac_access_denied_matched_policy\[(.*)\]$/.exec(details)?.[1] ?? '';
  return { status, by: details.startsWith('rbac') ? by : '' };
}

describeWith('envoy')('what policies decide', () => {
  test(
    'a real Envoy decides as we do, and by the same rule',
    async () => {
      const read = readMesh({ name: 'mesh.yaml', text: JSON.stringify(mesh) }, undefined);
      const listeners = new Map<string, JsonObject>();
      for (const [index, set] of sets.slice(0, SETS).entries()) {
        const { resources } = readPolicies([
          asFile('authz.yaml', shared),
          asFile('set.yaml', adapted(set, addressOf(index))),
        ]);
        const { namespace, labels } = set.node;
        const compiled = compile(new ResourceIndex(resources), { namespace, labels }, read.mesh);
        for (const listener of compiled.listeners) listeners.set(String(listener.name), listener);
      }
      const envoy = await startPolicyEnvoy(tempDir(), [...listeners.values()]);
      const verdicts = new Set<unknown>();
      const differing: unknown[] = [];
      let ambiguous = 0;
      try {
        for (let index = 0; index < SETS * REQUESTS; index++) {
          const one = request(addressOf(index % SETS));
          const listener = listeners.get(`${one.localIp}_${one.port}`)!;
          const ours = await judged(listener, one);
          if (ours === undefined) {
            ambiguous += 1;
            continue;
          }
          const theirs = await envoy.ask(one);
          const [mine, real] = [said(ours), answered(theirs, ours.asks.length > 0)];
          verdicts.add(mine.status);
          if (JSON.stringify(mine) !== JSON.stringify(real))
            differing.push({ one, mine, theirs, reason: ours.reason });
        }
      } finally {
        await envoy.stop();
      }
      expect(differing).toEqual([]);
      expect(ambiguous).toBeLessThan((SETS * REQUESTS) / 100);
      expect(verdicts).toEqual(new Set([undefined, 200, 400, 401, 403, 'ext_authz']));
    },
    FULL ? 600_000 : 60_000,
  );
});
