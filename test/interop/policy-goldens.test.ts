import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { load } from 'js-yaml';
import { compile } from '../../agent/policy/compile';
import { readMesh } from '../../agent/policy/read-mesh';
import { readPolicies } from '../../agent/policy/read-policies';
import { objectOf, objectsOf } from '../../agent/policy/resources/fields';
import type { JsonObject } from '../../agent/policy/resources/resource';
import { canonical, guardsOf } from '../../agent/policy/security-view';
import { ResourceIndex } from '../../agent/policy/select';
import { peerPath } from '../support/peer-path';
import { describeWith } from '../support/peers';

/** A case of istiod's authorization builder: its input, what comes out, and what it is compiled with. */
interface Case {
  readonly input: string;
  readonly want: readonly string[];
  readonly trustDomain?: string;
  readonly aliases?: readonly string[];
  readonly provider?: JsonObject;
}

const service = { port: 9000, failOpen: true, statusOnError: '403' };
const GRPC_ANYWHERE = {
  envoyExtAuthzGrpc: { ...service, service: 'my-custom-ext-authz.foo.svc.cluster.local' },
};
const GRPC = {
  envoyExtAuthzGrpc: {
    ...service,
    service: 'foo/my-custom-ext-authz.foo.svc.cluster.local',
    timeout: '0.002s',
    includeRequestBodyInCheck: { maxRequestBytes: 4096, allowPartialMessage: true },
  },
};
const HTTP = {
  envoyExtAuthzHttp: {
    ...service,
    service: 'foo/my-custom-ext-authz.foo.svc.cluster.local',
    timeout: '10s',
    pathPrefix: '/check',
    includeRequestHeadersInCheck: ['x-custom-id', 'x-prefix-*', '*-suffix'],
    includeAdditionalHeadersInCheck: { 'x-header-1': 'value-1', 'x-header-2': 'value-2' },
    includeRequestBodyInCheck: {
      maxRequestBytes: 2048,
      allowPartialMessage: true,
      packAsBytes: true,
    },
    headersToUpstreamOnAllow: ['Authorization', 'x-prefix-*', '*-suffix'],
    headersToDownstreamOnDeny: ['Set-cookie', 'x-prefix-*', '*-suffix'],
    headersToDownstreamOnAllow: ['Set-cookie', 'x-prefix-*', '*-suffix'],
  },
};

const both = (name: string) => [`${name}-out1`, `${name}-out2`];
const one = (name: string): Case => ({ input: `${name}-in`, want: [`${name}-out`] });

const HTTP_CASES: Readonly<Record<string, Case>> = {
  'an empty rule allows': one('allow-empty-rule'),
  'every field of a rule': one('allow-full-rule'),
  'no rule allows nothing': one('allow-nil-rule'),
  'a gRPC authorizer of any namespace': {
    input: 'custom-simple-http-in',
    want: both('custom-grpc-provider-no-namespace'),
    provider: GRPC_ANYWHERE,
  },
  'a gRPC authorizer': {
    input: 'custom-simple-http-in',
    want: both('custom-grpc-provider'),
    provider: GRPC,
  },
  'several authorizers': {
    input: 'custom-bad-multiple-providers-in',
    want: both('custom-bad-multiple-providers'),
    provider: HTTP,
  },
  'an unknown authorizer': { input: 'custom-simple-http-in', want: ['custom-bad-out'] },
  'DENY before ALLOW': { input: 'deny-and-allow-in', want: both('deny-and-allow') },
  'an empty rule denies': one('deny-empty-rule'),
  'dry runs of ALLOW and DENY': {
    input: 'dry-run-allow-and-deny-in',
    want: both('dry-run-allow-and-deny'),
  },
  'a dry run of ALLOW': one('dry-run-allow'),
  'several policies': one('multiple-policies'),
  'one policy': one('single-policy'),
  'an alias of the trust domain': {
    ...one('simple-policy-td-aliases'),
    trustDomain: 'td1',
    aliases: ['cluster.local'],
  },
  'a wildcard in the trust domain of a principal': {
    ...one('simple-policy-principal-with-wildcard'),
    trustDomain: 'td1',
    aliases: ['foobar'],
  },
};

const TCP_CASES: Readonly<Record<string, Case>> = {
  'ALLOW with fields of HTTP and TCP': one('allow-both-http-tcp'),
  'ALLOW with fields of HTTP only': one('allow-only-http'),
  'AUDIT with fields of HTTP and TCP': one('audit-both-http-tcp'),
  'an HTTP authorizer': { input: 'custom-only-http-in', want: [], provider: HTTP },
  'dry runs beside policies in force': one('dry-run-mix'),
};

const PORTS = { http: 8080, tcp: 9090 } as const;
type Kind = keyof typeof PORTS;

describeWith('istio-authz')("the goldens of istiod's authorization builder", () => {
  const folder = peerPath('istio-authz')!;
  const read = (kind: Kind, name: string) =>
    readFileSync(join(folder, kind, `${name}.yaml`), 'utf8');

  test.each(Object.entries(HTTP_CASES))('HTTP: %s', (_, golden) =>
    expect(compiled('http', golden)).toEqual(wanted('http', golden)),
  );
  test.each(Object.entries(TCP_CASES))('TCP: %s', (_, golden) =>
    expect(compiled('tcp', golden)).toEqual(wanted('tcp', golden)),
  );

  function wanted(kind: Kind, { want }: Case) {
    return want.map((name) => canonical(load(read(kind, name)) as JsonObject));
  }

  function compiled(kind: Kind, { input, trustDomain, aliases, provider }: Case) {
    const mesh = {
      trustDomain: trustDomain ?? 'cluster.local',
      trustDomainAliases: aliases ?? [],
      extensionProviders: provider ? [{ name: 'default', ...provider }] : [],
    };
    const { resources, problems } = readPolicies([
      { name: 'input.yaml', bytes: Buffer.from(read(kind, input)) },
      { name: 'around.yaml', bytes: Buffer.from(AROUND) },
    ]);
    expect(problems).toEqual([]);
    const { listeners } = compile(
      new ResourceIndex(resources),
      { namespace: 'foo', labels: { app: 'httpbin', version: 'v1' } },
      readMesh({ name: 'mesh.yaml', text: JSON.stringify(mesh) }, undefined).mesh,
    );
    const listener = listeners.find(
      ({ address }) => objectOf(objectOf(address).socketAddress).portValue === PORTS[kind],
    );
    return canonical(guardsOf(objectsOf(listener?.filterChains)[0]!).filters);
  }
});

/** A port of each kind, and the service of the authorizer. */
const AROUND = JSON.stringify({
  apiVersion: 'v1',
  kind: 'List',
  items: [
    {
      apiVersion: 'networking.istio.io/v1',
      kind: 'Sidecar',
      metadata: { name: 'httpbin', namespace: 'foo' },
      spec: {
        ingress: [
          { port: { number: 8080, protocol: 'HTTP', name: 'http' }, captureMode: 'NONE' },
          { port: { number: 9090, protocol: 'TCP', name: 'tcp' }, captureMode: 'NONE' },
        ],
      },
    },
    {
      apiVersion: 'networking.istio.io/v1',
      kind: 'ServiceEntry',
      metadata: { name: 'ext-authz', namespace: 'foo' },
      spec: {
        hosts: ['my-custom-ext-authz.foo.svc.cluster.local'],
        ports: [{ number: 9000, protocol: 'GRPC', name: 'grpc' }],
      },
    },
  ],
});
