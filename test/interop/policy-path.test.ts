import { request } from 'node:http';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { compile } from '../../agent/policy/compile';
import { seenPath } from '../../agent/policy/evaluate/path';
import type { PathNormalization } from '../../agent/policy/mesh';
import { readMesh } from '../../agent/policy/read-mesh';
import { readPolicies } from '../../agent/policy/read-policies';
import { objectOf, objectsOf } from '../../agent/policy/resources/fields';
import type { JsonObject } from '../../agent/policy/resources/resource';
import { ResourceIndex } from '../../agent/policy/select';
import { type Envoy, startEnvoy } from '../support/envoy';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

const MODES: readonly PathNormalization[] = [
  'NONE',
  'BASE',
  'MERGE_SLASHES',
  'DECODE_AND_MERGE_SLASHES',
];

const ESCAPES = Array.from(
  { length: 255 },
  (_, code) => `%${(code + 1).toString(16).padStart(2, '0')}`,
);
const PATHS = [
  ...ESCAPES.map((each) => `/a${each}b`),
  ...ESCAPES.map((each) => `/a${each.toUpperCase()}b`),
  '/a/./b',
  '/a/../b',
  '/a/%2e%2e/b',
  '/a/%2E/b',
  '/../../a',
  '//a///b//',
  '/a/..//b',
  '/a//../b',
  '/a\\b',
  '/a%5c..%5cb',
  '/a%2f..%2fb',
  '/a%252fb',
  '/a?b=/../c//d%2f',
  '/a;b=c/../d',
  '/a/...',
  '/a/b/..',
  '/a/b/.',
  '/%',
  '/%zz',
  '/%a',
  '/a#b',
  "/!$&'()*+,;=:@",
  '/"<>^`{|}',
];

describeWith('envoy')('a path as filters see it', () => {
  let envoy: Envoy;

  beforeAll(async () => {
    envoy = await startEnvoy({
      dir: tempDir(),
      name: 'paths',
      config: {
        admin: { address: { socketAddress: { address: '127.0.0.1', portValue: 0 } } },
        staticResources: { listeners: MODES.map(listenerOf) },
      },
    });
  });
  afterAll(() => envoy?.stop());

  test.each(MODES)('is what Envoy makes of it by %s', async (mode) => {
    const port = await envoy.port(mode);
    for (const path of PATHS) {
      const seen = await echoed(port, path);
      // What Envoy refuses reaches no filter, and is refused here.
      expect([path, said(path, mode)]).toEqual([path, seen]);
    }
  });
});

/** By the fields of the connection manager, which are compiled; undefined where no filter sees it. */
function said(path: string, mode: PathNormalization): string | undefined {
  const [chain] = objectsOf(listenerOf(mode).filterChains);
  const manager = objectOf(objectsOf(chain?.filters)[0]?.typedConfig);
  const seen = seenPath(path, {
    normalizes: manager.normalizePath === true,
    mergesSlashes: manager.mergeSlashes === true,
    escapedSlashes: String(manager.pathWithEscapedSlashesAction),
  });
  return 'path' in seen ? seen.path : undefined;
}

/** The compiled listener, telling the path that its routes see. */
function listenerOf(mode: PathNormalization): JsonObject {
  const { mesh } = readMesh(
    { name: 'mesh', text: JSON.stringify({ pathNormalization: { normalization: mode } }) },
    undefined,
  );
  const { resources } = readPolicies([{ name: 'set', bytes: Buffer.from(SIDECAR) }]);
  const workload = { namespace: 'a', labels: {}, address: '127.0.0.1' };
  const [listener] = compile(new ResourceIndex(resources), workload, mesh).listeners;
  return {
    ...listener!,
    name: mode,
    address: { socketAddress: { address: '127.0.0.1', portValue: 0 } },
    filterChains: objectsOf(listener!.filterChains).map(({ filters }) => ({
      filters: objectsOf(filters).map((filter) => ({
        ...filter,
        typedConfig: { ...objectOf(filter.typedConfig), routeConfig: ECHO },
      })),
    })),
  };
}

const SIDECAR = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: a}
spec: {mtls: {mode: DISABLE}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a, namespace: a}
spec: {ingress: [{port: {number: 8080, protocol: HTTP, name: http}}]}
`;

const ECHO = {
  virtualHosts: [
    {
      name: 'all',
      domains: ['*'],
      routes: [{ match: { prefix: '/' }, directResponse: { status: 200 } }],
    },
  ],
  responseHeadersToAdd: [{ header: { key: 'x-path', value: '%REQ(:PATH)%' } }],
};

function echoed(port: number, path: string): Promise<string | undefined> {
  return new Promise((done, failed) => {
    const asked = request({ host: '127.0.0.1', port, path, agent: false }, (response) => {
      response.resume();
      const seen = response.headers['x-path'];
      done(response.statusCode === 200 && typeof seen === 'string' ? seen : undefined);
    });
    asked.on('error', failed).end();
  });
}
