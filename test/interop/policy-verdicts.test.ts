import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { compile } from '../../agent/policy/compile';
import type { Call } from '../../agent/policy/evaluate/call';
import { evaluateCall, type Verdict } from '../../agent/policy/evaluate/listener';
import { requestOf } from '../../agent/policy/evaluate/request';
import { readMesh } from '../../agent/policy/read-mesh';
import { readPolicies } from '../../agent/policy/read-policies';
import type { JsonObject } from '../../agent/policy/resources/resource';
import { ResourceIndex } from '../../agent/policy/select';
import { describeWith } from '../support/peers';
import { type EnvoyAnswer, type FiredCall, startPolicyEnvoy } from '../support/policy-envoy';
import { seeded } from '../support/seeded';
import { tempDir } from '../support/temp-dir';

const FULL = process.env.KEYTURN_TEST === 'full';
const SETS = FULL ? 100 : 20;
const REQUESTS = FULL ? 100 : 50;

const { mesh, shared, sets } = JSON.parse(
  gunzipSync(readFileSync(join(__dirname, '../recorded/istiod-policies.json.gz'))).toString(),
);
const random = seeded(12);
const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!;
const asFile = (name: string, documents: readonly JsonObject[]) => ({
  name,
  bytes: Buffer.from(documents.map((each) => JSON.stringify(each)).join('\n---\n')),
});

/** Each set has an address of its own; runs beside each other have others. */
const net = 10 + (process.pid % 200);
const addressOf = (index: number) => `127.${net}.${index}.1`;

/** Addresses are such as a caller has on this machine. */
function adapted(
  { documents }: { readonly documents: readonly JsonObject[] },
  address: string,
): JsonObject[] {
  const text = JSON.stringify(documents.filter(({ kind }) => kind !== 'RequestAuthentication'))
    .replaceAll('192.0.2.1', address)
    .replaceAll('10.0.0.0/8', '127.0.0.2/31')
    .replaceAll('192.168.1.7', '127.0.0.7');
  return JSON.parse(text);
}

const word = () => pick(['shop', 'cart', 'a.b', 'x-y_z', 'x-y', 'pay+ment', 'a[0]', 'w^$']);
const path = () =>
  pick([
    () => `/${word()}`,
    () => `/${word()}/x`,
    () => pick(['/t/a/end', '/t//end', '/t/a/b/end', '/T/a/end', '/t/a%20b/end', '/t/a=b/end']),
    () => pick(['/v1/q/x/', '/v1/q/x/a/b', '/v1/q/x', '/a/b?c=d', '/a/b', '/a/./b', '/a//b']),
    () =>
      pick(['/a/../shop', '/a/%2e%2E/cart', '/a%2Fb', '/a\\b', '/%73hop', '/a/..', '/', '/..%2f']),
    () => pick(['/%zz', '/a/b/.', '/a;b', '/a"b', "/a'b", '/~x', '/%7ex']),
  ])();

const headers = (): (readonly [string, string])[] => [
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

function request(localIp: string): FiredCall {
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

function callOf(one: FiredCall): Call {
  const forwarded = one.headers.find(([name]) => name === 'x-forwarded-for')?.[1];
  const last = forwarded?.split(', ').at(-1) ?? one.ip;
  return {
    peer: one.from,
    port: one.port,
    serverName: one.serverName,
    directIp: one.ip,
    remoteIp: isIP(last) === 0 ? one.ip : last,
    destinationIp: one.localIp,
    request: requestOf({ ...one, claims: undefined }, 'DEFAULT'),
  };
}

/** What both say, in one form: Envoy names the rule of a request, and closes a connection. */
function said({ outcome, by }: Verdict): string {
  if (outcome === 'ask') return 'ask';
  if (outcome === 'deny') return `deny ${by.startsWith('no rule') ? 'none' : by}`;
  return outcome === 'allow' ? 'allow' : 'closed';
}

function did({ status, details }: EnvoyAnswer): string {
  if (details.startsWith('ext_authz')) return 'ask';
  const by = /^rbac_access_denied_matched_policy\[(.*)\]$/.exec(details)?.[1];
  if (by !== undefined) return `deny ${by}`;
  return status === 200 ? 'allow' : `${status} ${details}`;
}

function agrees(verdict: Verdict, answer: EnvoyAnswer): boolean {
  // A connection is closed without a word, whoever refuses it.
  if (answer.status === undefined) return verdict.outcome !== 'allow';
  return said(verdict) === did(answer);
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
      const outcomes = new Set<string>();
      const differing: unknown[] = [];
      try {
        for (let index = 0; index < SETS * REQUESTS; index++) {
          const one = request(addressOf(index % SETS));
          const ours = evaluateCall([listeners.get(`${one.localIp}_${one.port}`)!], callOf(one));
          const theirs = await envoy.ask(one);
          outcomes.add(ours.outcome);
          if (!agrees(ours, theirs)) differing.push({ one, ours: said(ours), theirs });
        }
      } finally {
        await envoy.stop();
      }
      expect(differing).toEqual([]);
      expect([...outcomes].sort()).toEqual(['allow', 'ask', 'deny', 'refused']);
    },
    FULL ? 600_000 : 60_000,
  );
});
