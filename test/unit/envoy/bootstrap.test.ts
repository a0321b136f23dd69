import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type BootstrapOptions, createBootstrap } from '../../../agent/envoy/bootstrap';
import { peerPath } from '../../support/peer-path';
import { testWith } from '../../support/peers';
import { tempDir } from '../../support/temp-dir';

const INBOUND = {
  listen: { host: '0.0.0.0', port: 15_006 },
  upstream: { host: '127.0.0.1', port: 8_080 },
};
const OUTBOUND = {
  listen: { host: '127.0.0.1', port: 15_001 },
  peer: { host: '10.0.0.2', port: 15_006 },
};
const BASE: BootstrapOptions = {
  sdsSocket: '/run/keyturn/socket',
  trustDomain: 'cluster.local',
  inbound: INBOUND,
};

/** Every object of a bootstrap that has a member of that name. */
function having(name: string, value: unknown): Record<string, unknown>[] {
  if (typeof value !== 'object' || value === null) return [];
  const below = Object.values(value).flatMap((each) => having(name, each));
  return name in value ? [value as Record<string, unknown>, ...below] : below;
}

describe('an Envoy bootstrap', () => {
  test('asks for its secrets on a cluster of their own, waits for the first and finds a restarted agent at once', () => {
    const made = createBootstrap({ ...BASE, outbound: OUTBOUND });
    const asks = having('sds_config', made);
    expect(asks.map((each) => each.name)).toEqual(['default', 'ROOTCA', 'default', 'ROOTCA']);
    expect(new Set(asks.map((each) => JSON.stringify(each.sds_config))).size).toBe(1);
    expect(asks[0]!.sds_config).toEqual({
      resource_api_version: 'V3',
      initial_fetch_timeout: '0s',
      api_config_source: {
        api_type: 'GRPC',
        transport_api_version: 'V3',
        set_node_on_first_message_only: true,
        grpc_services: [
          {
            envoy_grpc: {
              cluster_name: 'keyturn-sds',
              retry_policy: { retry_back_off: { base_interval: '0.1s', max_interval: '1s' } },
            },
          },
        ],
      },
    });
    expect(having('pipe', made)).toEqual([{ pipe: { path: '/run/keyturn/socket' } }]);
  });

  test('demands a certificate of its trust domain, or one of those named', () => {
    const anyone = createBootstrap({ ...BASE, outbound: OUTBOUND });
    expect(having('require_client_certificate', anyone)).toHaveLength(1);
    expect(having('san_type', anyone)).toEqual([
      { san_type: 'URI', matcher: { prefix: 'spiffe://cluster.local/' } },
      { san_type: 'URI', matcher: { prefix: 'spiffe://cluster.local/' } },
    ]);
    const named = createBootstrap({
      ...BASE,
      inbound: { ...INBOUND, callers: ['spiffe://cluster.local/ns/a/sa/b'] },
      outbound: { ...OUTBOUND, peerId: 'spiffe://other.example/ns/c/sa/d' },
    });
    expect(having('san_type', named).map((each) => each.matcher)).toEqual([
      { exact: 'spiffe://cluster.local/ns/a/sa/b' },
      { exact: 'spiffe://other.example/ns/c/sa/d' },
    ]);
  });

  test('judges peers of every trust domain by ALL, and still lets in of others only those that are named', () => {
    const friend = 'spiffe://other.example/ns/c/sa/d';
    const made = createBootstrap({
      ...BASE,
      validationContext: 'ALL',
      outbound: { ...OUTBOUND, peerId: friend },
    });
    expect(having('sds_config', made).map((each) => each.name)).toEqual([
      'default',
      'ALL',
      'default',
      'ALL',
    ]);
    expect(having('san_type', made).map((each) => each.matcher)).toEqual([
      { prefix: 'spiffe://cluster.local/' },
      { exact: friend },
    ]);
  });

  test('can make every request a full handshake', () => {
    const made = createBootstrap({
      ...BASE,
      sessionResumption: false,
      outbound: { ...OUTBOUND, requestsPerConnection: 1 },
    });
    expect(having('max_requests_per_connection', made)).toEqual([
      { max_requests_per_connection: 1 },
    ]);
    expect(having('max_session_keys', made)).toHaveLength(1);
    expect(having('disable_stateless_session_resumption', made)[0]).toMatchObject({
      disable_stateless_session_resumption: true,
      disable_stateful_session_resumption: true,
    });
    expect(having('max_session_keys', createBootstrap({ ...BASE, outbound: OUTBOUND }))).toEqual(
      [],
    );
  });

  test('names a peer that has a name to it, and only then', () => {
    expect(having('sni', createBootstrap({ ...BASE, outbound: OUTBOUND }))).toEqual([]);
    const named = createBootstrap({
      ...BASE,
      outbound: { ...OUTBOUND, peer: { host: 'pay.example', port: 443 } },
    });
    expect(having('sni', named)[0]).toMatchObject({ sni: 'pay.example' });
    expect(having('type', named).map((each) => `${each.name} ${each.type}`)).toContain(
      'peer STRICT_DNS',
    );
  });

  const { inbound: _, ...neither } = BASE;
  test.each<[string, BootstrapOptions]>([
    ['sds socket: must be an absolute path', { ...BASE, sdsSocket: './var/socket' }],
    [
      'sds socket: must not be longer than 107 bytes as an absolute path',
      { ...BASE, sdsSocket: `/${'x'.repeat(107)}` },
    ],
    ['trust domain: must not be empty', { ...BASE, trustDomain: '' }],
    ['bootstrap: must have an inbound or an outbound side', neither],
    [
      'path: must not be empty in a workload identity',
      { ...BASE, inbound: { ...INBOUND, callers: ['spiffe://cluster.local'] } },
    ],
    [
      'spiffe id: must start with spiffe://',
      { ...BASE, outbound: { ...OUTBOUND, peerId: 'cart' } },
    ],
    [
      'requests per connection: must be a whole number from 1',
      { ...BASE, outbound: { ...OUTBOUND, requestsPerConnection: 0 } },
    ],
  ])('is refused: %s', (message, options) => {
    expect(() => createBootstrap(options)).toThrow(expect.objectContaining({ message }));
  });

  testWith('envoy')('is accepted by Envoy in each of its forms', () => {
    const dir = tempDir();
    const forms: BootstrapOptions[] = [
      BASE,
      { ...neither, outbound: OUTBOUND },
      {
        ...BASE,
        outbound: {
          ...OUTBOUND,
          peer: { host: 'localhost', port: 1 },
          peerId: 'spiffe://cluster.local/a',
          requestsPerConnection: 1,
        },
        sessionResumption: false,
      },
      {
        ...BASE,
        inbound: {
          ...INBOUND,
          listen: { host: '::1', port: 1 },
          callers: ['spiffe://cluster.local/a', 'spiffe://cluster.local/b'],
        },
      },
    ];
    for (const form of forms) {
      const file = join(dir, 'envoy.json');
      writeFileSync(file, JSON.stringify(createBootstrap(form)));
      const checked = spawnSync(peerPath('envoy')!, ['--mode', 'validate', '-c', file], {
        encoding: 'utf8',
      });
      expect(checked).toMatchObject({ status: 0, stdout: expect.stringContaining('OK') });
      // A misplaced or deprecated member is a warning only.
      expect(checked.stderr).not.toMatch(/unknown field|deprecated/i);
    }
  });
});
