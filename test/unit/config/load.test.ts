import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { AgentError } from '../../../agent/base/errors';
import type { Config, LoadedConfig } from '../../../agent/config/config';
import { loadConfig, readSettings } from '../../../agent/config/load';
import {
  environmentName,
  environmentNames,
  OPTIONS,
  type Option,
  SETTING_NAMES,
  type SettingName,
} from '../../../agent/config/options';
import type { Flags } from '../../../agent/config/sources';
import { formatSpiffeId } from '../../../agent/identity/spiffe-id';

let empty: string;

beforeAll(() => {
  empty = mkdtempSync(join(tmpdir(), 'keyturn-config-'));
});
afterAll(() => rmSync(empty, { recursive: true }));

interface Given {
  readonly flags?: Flags;
  readonly env?: Record<string, string>;
  readonly file?: string;
  readonly cwd?: string;
}

function load({ flags = {}, env = {}, file, cwd = empty }: Given) {
  return loadConfig({
    flags: file === undefined ? flags : { config: 'keyturn.yaml', ...flags },
    env,
    cwd,
    readFile: async () => Buffer.from(file ?? ''),
  });
}

/** Loads with the built-in CA chosen, so that only what is under test can be wrong. */
const loadBuiltin = (given: Given) => load({ ...given, flags: { ca: 'builtin', ...given.flags } });

async function origin(given: Given, name: SettingName): Promise<string> {
  return (await loadBuiltin(given)).settings.find((each) => each.name === name)!.origin;
}

/** The message of each problem, with its hint after a bar. */
async function problems(given: Given): Promise<string[]> {
  const caught = await load(given).then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(caught instanceof AgentError)) throw new Error(`expected an AgentError, got ${caught}`);
  const all =
    caught.cause instanceof AggregateError ? (caught.cause.errors as AgentError[]) : [caught];
  return all.map((each) =>
    each.hint === undefined ? each.message : `${each.message} | ${each.hint}`,
  );
}

/** For each setting two values that are not its default, and what they become. */
const EXAMPLES: {
  [N in SettingName]: {
    readonly texts: readonly [string, string];
    readonly read: (config: Config) => unknown;
  };
} = {
  ca: { texts: ['istiod,builtin', 'file'], read: (config) => config.ca.join(',') },
  'ca-address': {
    texts: ['a.example:15012', '[::1]:443'],
    read: (config) => config.caAddresses.join(','),
  },
  'ca-root': { texts: ['SYSTEM', './root.pem'], read: (config) => config.caRoot },
  'ca-server-name': { texts: ['a.example', 'b.example'], read: (config) => config.caServerName },
  token: { texts: ['/a', './b'], read: (config) => config.token },
  'prov-cert': { texts: ['/a', './b'], read: (config) => config.provCert },
  'cluster-id': { texts: ['east', 'Kubernetes'], read: (config) => config.clusterId },
  'cert-signer': { texts: ['signer1', 'signer2'], read: (config) => config.certSigner },
  // Values are not shown, and this is how they are not.
  'signer-name': {
    texts: ['a.example/b', 'issuers.cert-manager.io/ns.name'],
    read: (config) => config.signerName,
  },
  'csr-usages': { texts: ['istio', 'by-key'], read: (config) => config.csrUsages },
  kubeconfig: { texts: ['/a', './b'], read: (config) => config.kubeconfig },
  'ca-header': {
    texts: ['x-a=[redacted]', 'x-a=[redacted],x-b=[redacted]'],
    read: (config) => [...config.caHeaders].map(([name, value]) => `${name}=${value}`).join(','),
  },
  'ca-timeout': {
    texts: ['10m', '90s'],
    read: (config) => `${config.caTimeoutMs / 1_000}s`.replace(/^600s$/, '10m'),
  },
  'ca-dir': { texts: ['/a', './b'], read: (config) => config.caDir },
  'ca-key-algorithm': {
    texts: ['rsa-2048', 'ecdsa-p384'],
    read: (config) => config.caKeyAlgorithm,
  },
  'credentials-dir': { texts: ['/a', './b'], read: (config) => config.credentialsDir },
  'credential-bundle': { texts: ['/a', './b'], read: (config) => config.credentialBundle },
  'trust-bundle': { texts: ['/a', './b'], read: (config) => config.trustBundle },
  'root-trust-domains': {
    texts: ['old.example', 'a.example,b.example'],
    read: (config) => config.rootTrustDomains.join(','),
  },
  crl: { texts: ['/a', 'http://ca.example:8080/crl.pem'], read: (config) => config.crl },
  'federated-bundle': {
    texts: ['a.example=/a.json,b.example=b.pem', 'a.example=https://a.example/bundle?x=1,y'],
    read: (config) => [...config.federatedBundles].map((each) => each.join('=')).join(','),
  },
  'trust-domain': { texts: ['a.example', 'b.example'], read: (config) => config.id?.trustDomain },
  namespace: { texts: ['shop', 'bank'], read: (config) => config.id?.path.split('/')[2] },
  'service-account': { texts: ['cart', 'till'], read: (config) => config.id?.path.split('/')[4] },
  'spiffe-id': {
    texts: ['spiffe://x.example/one', 'spiffe://x.example/two'],
    read: (config) => config.id && formatSpiffeId(config.id),
  },
  'key-algorithm': { texts: ['rsa-3072', 'ecdsa-p384'], read: (config) => config.keyAlgorithm },
  'key-format': { texts: ['traditional', 'pkcs8'], read: (config) => config.keyFormat },
  ttl: {
    texts: ['1h', '90m'],
    read: (config) => `${config.ttlMs / 60_000}m`.replace(/^60m$/, '1h'),
  },
  'renew-ratio': { texts: ['0.25', '0.75'], read: (config) => String(config.renewRatio) },
  'renew-jitter': { texts: ['0', '0.1'], read: (config) => String(config.renewJitter) },
  crypto: { texts: ['webcrypto', 'peculiar'], read: (config) => config.engine },
  'sds-socket': { texts: ['/a', './b'], read: (config) => config.sdsSocket },
  'sds-socket-mode': {
    texts: ['0660', '0666'],
    read: (config) => `0${config.sdsSocketMode.toString(8)}`,
  },
  'sds-socket-owner': { texts: ['cart', '1001'], read: (config) => config.sdsSocketOwner },
  'sds-socket-group': { texts: ['istio-proxy', '1337'], read: (config) => config.sdsSocketGroup },
  'sds-file-dir': { texts: ['/a', '/b,/c'], read: (config) => config.sdsFileDirs.join(',') },
  'jwt-svid-ttl': {
    texts: ['1m', '90s'],
    read: (config) => `${config.jwtSvidTtlMs / 1_000}s`.replace(/^60s$/, '1m'),
  },
  'svid-hint': { texts: ['internal', 'external'], read: (config) => config.svidHint },
  'output-certs': { texts: ['/a', './b'], read: (config) => config.outputCerts },
  'state-dir': { texts: ['/a', './b'], read: (config) => config.stateDir },
  workloads: { texts: ['/a', './b.yaml'], read: (config) => config.workloads },
  'workloads-ready': { texts: ['any', 'all'], read: (config) => config.workloadsReady },
  'on-removal': { texts: ['delete', 'keep'], read: (config) => config.onRemoval },
  'admin-address': { texts: ['0.0.0.0:0', '[::1]:15020'], read: (config) => config.adminAddress },
  'control-socket': { texts: ['/a', './b'], read: (config) => config.controlSocket },
  config: { texts: ['one.yaml', 'two.yaml'], read: () => undefined },
  'log-level': { texts: ['debug', 'error'], read: (config) => config.logLevel },
  'log-format': { texts: ['json', 'text'], read: (config) => config.logFormat },
};
const KEYS = SETTING_NAMES.filter((name) => name !== 'config');

describe('precedence', () => {
  test.each(KEYS)(
    '%s: a flag wins over KEYTURN_ environment, that over the file, that over the default',
    async (name) => {
      const { texts, read } = EXAMPLES[name];
      const [one, two] = texts;
      const base = name === 'ca' ? {} : { ca: 'builtin' };
      const variable = environmentName(name);

      const byFlag = await load({ flags: { ...base, [name]: one }, env: { [variable]: two } });
      expect(read(byFlag.config)).toBe(one);
      expect(byFlag.settings.find((each) => each.name === name)).toEqual({
        name,
        value: one,
        origin: `flag --${name}`,
      });

      const byVariable = await load({
        flags: base,
        env: { [variable]: one },
        file: `${name}: "${two}"`,
      });
      expect(read(byVariable.config)).toBe(one);
      expect(byVariable.settings.find((each) => each.name === name)).toEqual({
        name,
        value: one,
        origin: `environment ${variable}`,
      });

      const byFile = await load({ flags: base, file: `${name}: "${one}"` });
      expect(read(byFile.config)).toBe(one);
      expect(byFile.settings.find((each) => each.name === name)).toEqual({
        name,
        value: one,
        origin: `file keyturn.yaml: ${name}`,
      });
    },
  );

  test.each(KEYS.filter((name) => name !== 'ca'))(
    '%s: an empty environment variable counts as unset',
    async (name) => {
      expect(
        await origin(
          { env: Object.fromEntries(environmentNames(name).map((each) => [each, ''])) },
          name,
        ),
      ).toBe('default');
    },
  );

  test('the file can be named by KEYTURN_CONFIG, and --config wins', async () => {
    const read: string[] = [];
    const sources = {
      env: { KEYTURN_CONFIG: 'a.yaml' },
      cwd: '/somewhere',
      readFile: async (path: string) => {
        read.push(path);
        return Buffer.alloc(0);
      },
    };
    await loadConfig({ ...sources, flags: { ca: 'builtin' } });
    await loadConfig({ ...sources, flags: { ca: 'builtin', config: '/b.yaml' } });
    expect(read).toEqual(['/somewhere/a.yaml', '/b.yaml']);
  });

  test.each(KEYS)('%s: its default, where there is one, passes its own parser', (name) => {
    const option: Option<unknown> = OPTIONS[name];
    if (option.default !== undefined)
      expect(() => option.type.parse(option.default!, name)).not.toThrow();
    expect(option.help).toMatch(/^[A-Z].*[^.]$/);
  });
});

describe("upstream's environment names", () => {
  test.each<[Record<string, string>, SettingName, string, string]>([
    [{ TRUST_DOMAIN: 'a.example' }, 'trust-domain', 'a.example', 'TRUST_DOMAIN'],
    [{ POD_NAMESPACE: 'shop' }, 'namespace', 'shop', 'POD_NAMESPACE'],
    [{ SERVICE_ACCOUNT: 'cart' }, 'service-account', 'cart', 'SERVICE_ACCOUNT'],
    [{ SECRET_TTL: '48h0m0s' }, 'ttl', '48h0m0s', 'SECRET_TTL'],
    [{ SECRET_GRACE_PERIOD_RATIO: '0.7' }, 'renew-ratio', '0.3', 'SECRET_GRACE_PERIOD_RATIO'],
    [
      { SECRET_GRACE_PERIOD_RATIO_JITTER: '0.01' },
      'renew-jitter',
      '0.01',
      'SECRET_GRACE_PERIOD_RATIO_JITTER',
    ],
    [{ CA_ADDR: 'istiod.example:15012' }, 'ca-address', 'istiod.example:15012', 'CA_ADDR'],
    [{ CA_ROOT_CA: 'SYSTEM' }, 'ca-root', 'SYSTEM', 'CA_ROOT_CA'],
    [
      { PILOT_CERT_PROVIDER: 'custom' },
      'ca-root',
      './etc/certs/root-cert.pem',
      'PILOT_CERT_PROVIDER',
    ],
    [{ PILOT_CERT_PROVIDER: 'custom', CA_ROOT_CA: './r.pem' }, 'ca-root', './r.pem', 'CA_ROOT_CA'],
    [{ ISTIOD_SAN: 'istiod.example' }, 'ca-server-name', 'istiod.example', 'ISTIOD_SAN'],
    [{ PROV_CERT: './etc/certs' }, 'prov-cert', './etc/certs', 'PROV_CERT'],
    [{ ISTIO_META_CLUSTER_ID: 'east' }, 'cluster-id', 'east', 'ISTIO_META_CLUSTER_ID'],
    [{ ISTIO_META_CERT_SIGNER: 'signer1' }, 'cert-signer', 'signer1', 'ISTIO_META_CERT_SIGNER'],
    [{ KUBECONFIG: './config' }, 'kubeconfig', './config', 'KUBECONFIG'],
    [{ CA_HEADER_X_KEY: 's3cret' }, 'ca-header', 'X_KEY=[redacted]', 'CA_HEADER_X_KEY'],
    [{ OUTPUT_CERTS: './etc/certs' }, 'output-certs', './etc/certs', 'OUTPUT_CERTS'],
    [
      { WORKLOAD_IDENTITY_SOCKET_FILE: 'keyturn' },
      'sds-socket',
      './var/run/secrets/workload-spiffe-uds/keyturn',
      'WORKLOAD_IDENTITY_SOCKET_FILE',
    ],
    [{ PKCS8_KEY: 'true' }, 'key-format', 'pkcs8', 'PKCS8_KEY'],
    [{ PKCS8_KEY: 'false' }, 'key-format', 'traditional', 'PKCS8_KEY'],
    [{ PKCS8_KEY: '0' }, 'key-format', 'traditional', 'PKCS8_KEY'],
    [
      { ECC_SIGNATURE_ALGORITHM: 'ECDSA' },
      'key-algorithm',
      'ecdsa-p256',
      'ECC_SIGNATURE_ALGORITHM',
    ],
    [
      { ECC_SIGNATURE_ALGORITHM: 'ECDSA', ECC_CURVE: 'P384' },
      'key-algorithm',
      'ecdsa-p384',
      'ECC_SIGNATURE_ALGORITHM',
    ],
    [{ ECC_CURVE: 'P384' }, 'key-algorithm', 'ecdsa-p384', 'ECC_CURVE'],
    [{ WORKLOAD_RSA_KEY_SIZE: '4096' }, 'key-algorithm', 'rsa-4096', 'WORKLOAD_RSA_KEY_SIZE'],
    [
      { WORKLOAD_RSA_KEY_SIZE: '2048', ECC_CURVE: 'P384' },
      'key-algorithm',
      'rsa-2048',
      'WORKLOAD_RSA_KEY_SIZE',
    ],
    [
      { WORKLOAD_RSA_KEY_SIZE: '2048', ECC_SIGNATURE_ALGORITHM: 'ECDSA' },
      'key-algorithm',
      'ecdsa-p256',
      'ECC_SIGNATURE_ALGORITHM',
    ],
  ])('%j sets %s to %s', async (env, name, value, variable) => {
    const { settings } = await loadBuiltin({ env });
    expect(settings.find((each) => each.name === name)).toEqual({
      name,
      value,
      origin: `environment ${variable}`,
    });
  });

  test('our own name wins over them', async () => {
    const { config } = await loadBuiltin({ env: { SECRET_TTL: '1h', KEYTURN_TTL: '2h' } });
    expect(config.ttlMs).toBe(7_200_000);
  });

  test.each<[Record<string, string>, string]>([
    [{ SECRET_TTL: '24' }, 'environment SECRET_TTL: "24" is not a duration'],
    [
      { SECRET_GRACE_PERIOD_RATIO: '0' },
      'environment SECRET_GRACE_PERIOD_RATIO: "0" must be more than 0 and less than 1',
    ],
    [
      { SECRET_GRACE_PERIOD_RATIO: '1' },
      'environment SECRET_GRACE_PERIOD_RATIO: "1" must be more than 0 and less than 1',
    ],
    [
      { SECRET_GRACE_PERIOD_RATIO: '.' },
      'environment SECRET_GRACE_PERIOD_RATIO: "." is not a plain number, e.g. 0.5',
    ],
    [
      { SECRET_GRACE_PERIOD_RATIO: '1e-3' },
      'environment SECRET_GRACE_PERIOD_RATIO: "1e-3" is not a plain number, e.g. 0.5',
    ],
    [
      { WORKLOAD_IDENTITY_SOCKET_FILE: '../socket' },
      'environment WORKLOAD_IDENTITY_SOCKET_FILE: "../socket" is not a file name',
    ],
    [
      { WORKLOAD_IDENTITY_SOCKET_FILE: '..' },
      'environment WORKLOAD_IDENTITY_SOCKET_FILE: ".." is not a file name',
    ],
    [{ PKCS8_KEY: 'yes' }, 'environment PKCS8_KEY: "yes" is not true or false'],
    [{ FILE_MOUNTED_CERTS: 'on' }, 'environment FILE_MOUNTED_CERTS: "on" is not true or false'],
    [
      { ECC_SIGNATURE_ALGORITHM: 'ed25519' },
      'environment ECC_SIGNATURE_ALGORITHM: "ed25519" is not ECDSA',
    ],
    [{ ECC_CURVE: 'P521' }, 'environment ECC_CURVE: "P521" is not one of P256, P384'],
    [
      { WORKLOAD_RSA_KEY_SIZE: '1024' },
      'environment WORKLOAD_RSA_KEY_SIZE: "1024" is not one of 2048, 3072, 4096',
    ],
    [
      { POD_NAMESPACE: 'a/b' },
      'environment POD_NAMESPACE: "a/b": it may contain only letters, digits, dots, dashes and underscores',
    ],
  ])('%j stops the start', async (env, message) => {
    const flags = 'FILE_MOUNTED_CERTS' in env ? {} : { ca: 'builtin' };
    const [first, ...others] = await problems({ flags, env });
    expect(first!.split(' | ')[0]).toBe(message);
    expect(others).toEqual([]);
  });
});

describe('refused values name their origin and rule', () => {
  test.each<[SettingName, string, RegExp]>([
    [
      'ca',
      'vault',
      /^flag --ca: "vault" is not one of istiod, istio-csr, kubernetes-csr, builtin, file/,
    ],
    ['ca', 'biultin', /\| did you mean builtin\?$/],
    ['ca', 'istiod,', /^flag --ca: "" is not one of/],
    ['ca', 'istiod,builtin,istiod', /^flag --ca: names istiod twice$/],
    ['ca', 'builtin,file', /^flag --ca: cannot name file beside a CA/],
    ['ca-address', 'istiod', /^flag --ca-address: "istiod" is not host:port/],
    ['ca-address', 'istiod:0', /must have a port other than 0$/],
    [
      'signer-name',
      'istio-ca',
      /^flag --signer-name: "istio-ca" is not a domain and a path \| e.g. clusterissuers/,
    ],
    [
      'signer-name',
      'kubernetes.io/kube-apiserver-client',
      /signs for the cluster itself, never for workloads$/,
    ],
    ['cluster-id', 'a b', /is not 1 to 253 printable ASCII characters without blanks$/],
    ['ca-header', 'x', /^flag --ca-header: must be name=value in printable ASCII$/],
    ['ca-header', 'x=s3cret\n', /^flag --ca-header: must be name=value in printable ASCII$/],
    ['ca-header', 'x=1,X=2', /^flag --ca-header: names X twice$/],
    [
      'token',
      `kt1_${'A'.repeat(43)}`,
      /^flag --token: must be the file that holds the token, not the token itself \|/,
    ],
    [
      'token',
      'eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln',
      /^flag --token: must be the file that holds the token, not the token itself \|/,
    ],
    ['ttl', '10', /^flag --ttl: "10" is not a duration \| write a number and a unit/],
    ['ttl', '999ms', /^flag --ttl: "999ms" is shorter than 1s/],
    ['ttl', '3651d', /^flag --ttl: "3651d" is longer than 3650d/],
    ['ttl', '0', /is shorter than 1s/],
    ['renew-ratio', '0', /must be more than 0 and less than 1$/],
    ['renew-ratio', '1', /must be more than 0 and less than 1$/],
    ['renew-ratio', '-0.5', /is not a plain number/],
    ['renew-ratio', '1e-1', /is not a plain number/],
    [
      'renew-jitter',
      '0.5',
      /^flag --renew-jitter: "0.5" must be less than renew-ratio \| renew-ratio is 0.5 \(default\)/,
    ],
    ['renew-jitter', '1', /must be at least 0 and less than 1$/],
    ['key-algorithm', 'ecdsa-p521', /is not one of ecdsa-p256, .* \| did you mean ecdsa-p256\?/],
    ['ca-key-algorithm', 'ed25519', /is not one of/],
    ['key-format', 'pkcs1', /\| did you mean pkcs8\?/],
    ['crypto', 'openssl', /is not one of direct, webcrypto, peculiar/],
    ['sds-socket-mode', '0888', /is not an octal mode/],
    ['sds-socket-mode', '01777', /is not an octal mode/],
    ['sds-socket-mode', '0755', /must not have executable bits/],
    ['sds-socket-mode', '0066', /must let the owner read and write/],
    ['sds-socket-mode', '', /is not an octal mode/],
    ['sds-socket-group', 'a b', /is not a group name or number/],
    ['sds-socket-group', '4294967295', /is not a group name or number/],
    ['sds-socket', '', /must not be empty/],
    ['sds-socket', 'a\0b', /must not have control characters/],
    ['sds-file-dir', '/a,,/b', /must not be empty/],
    ['federated-bundle', '/a.json', /"\/a.json" is not TRUST-DOMAIN=FILE or TRUST-DOMAIN=URL/],
    ['federated-bundle', 'A.example=/a.json', /may contain only lower-case letters/],
    ['federated-bundle', 'a.example=', /must not be empty/],
    ['federated-bundle', 'a.example=/a,a.example=/b', /names a.example twice/],
    [
      'federated-bundle',
      'a.example=ftp://a.example/b',
      /is not a path and not an http or https URL/,
    ],
    [
      'federated-bundle',
      'cluster.local=/a',
      /^flag --federated-bundle: names our own trust domain cluster.local/,
    ],
    ['jwt-svid-ttl', '25h', /is longer than 24h/],
    ['svid-hint', 'two words', /is not 1 to 253 printable ASCII characters without blanks/],
    ['admin-address', '15020', /"15020" is not host:port \| write an address and a port/],
    ['admin-address', ':15020', /is not host:port/],
    ['admin-address', '::1:15020', /is not host:port/],
    ['admin-address', '127.0.0.1:65536', /port 65536 is more than 65535/],
    [
      'trust-domain',
      'Cluster.Local',
      /^flag --trust-domain: "Cluster.Local": may contain only lower-case letters/,
    ],
    ['namespace', '..', /must not be or have a dot segment/],
    ['service-account', '', /must not be empty/],
    ['spiffe-id', 'spiffe://td', /path must not be empty in a workload identity/],
    ['spiffe-id', 'spiffe://td//a', /path must not have empty segments/],
    ['spiffe-id', 'https://td/a', /must start with spiffe:\/\//],
    ['log-level', 'trace', /is not one of debug, info, warn, error/],
    ['log-format', 'xml', /is not one of text, json/],
    ['output-certs', 'x'.repeat(5000), /must not be longer than 4096 characters/],
  ])('--%s %j', async (name, text, want) => {
    const [first, ...others] = await problems({ flags: { ca: 'builtin', [name]: text } });
    expect(first).toMatch(want);
    expect(others).toEqual([]);
  });

  test('a bad value in the environment or the file names that origin', async () => {
    expect(await problems({ flags: { ca: 'builtin' }, env: { KEYTURN_TTL: '10' } })).toEqual([
      expect.stringMatching(/^environment KEYTURN_TTL: "10" is not a duration/),
    ]);
    expect(await problems({ flags: { ca: 'builtin' }, file: 'ttl: 10' })).toEqual([
      expect.stringMatching(/^file keyturn.yaml: ttl: "10" is not a duration/),
    ]);
  });

  test('several problems are told together, each with its hint', async () => {
    expect(
      await problems({
        flags: { ttl: '10', 'key-algorithm': 'dsa' },
        env: { KEYTURN_TLL: '1h' },
        file: 'ca_dir: /x',
      }),
    ).toEqual([
      'environment KEYTURN_TLL: is not a setting | did you mean KEYTURN_TTL?',
      'file keyturn.yaml: ca_dir: is not a setting | did you mean ca-dir?',
      expect.stringMatching(/^flag --key-algorithm: "dsa" is not one of/),
      expect.stringMatching(/^flag --ttl: "10" is not a duration/),
      expect.stringMatching(/^flag --ca: is required/),
    ]);
  });

  test('the error for several problems names them all', async () => {
    await expect(load({ flags: { ttl: '10' } })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(
        /^settings: 2 are wrong: flag --ttl: .*; flag --ca: is required/,
      ),
    });
  });
});

describe('unknown names', () => {
  test('an unknown flag, variable or key stops the start', async () => {
    expect(await problems({ flags: { ca: 'builtin', tll: '1h' } })).toEqual([
      'flag --tll: is not a setting | did you mean --ttl?',
    ]);
    expect(await problems({ flags: { ca: 'builtin' }, env: { KEYTURN_COLOUR: 'x' } })).toEqual([
      'environment KEYTURN_COLOUR: is not a setting | `keyturn run --help` lists all settings',
    ]);
    expect(await problems({ flags: { ca: 'builtin' }, file: 'config: other.yaml' })).toEqual([
      expect.stringMatching(/^file keyturn.yaml: config: is not a setting/),
    ]);
  });

  test('variables of others, and those that Kubernetes makes for a Service called keyturn, are not ours to judge', async () => {
    const env = {
      PATH: '/bin',
      CA_HEADER_X: 'y',
      KEYTURN_TEST: 'full',
      KEYTURN_SERVICE_HOST: '10.0.0.1',
      KEYTURN_SERVICE_PORT: '15020',
      KEYTURN_SERVICE_PORT_HTTP_METRICS: '15020',
      KEYTURN_PORT: 'tcp://10.0.0.1:15020',
      KEYTURN_PORT_15020_TCP: 'tcp://10.0.0.1:15020',
      KEYTURN_PORT_15020_TCP_ADDR: '10.0.0.1',
      KEYTURN_ADMIN_SERVICE_HOST: '10.0.0.2',
    };
    await expect(loadBuiltin({ env })).resolves.toBeDefined();
  });
});

describe('choosing the certificate authority', () => {
  test('it is required, and the error lists the choices', async () => {
    expect(await problems({})).toEqual([
      expect.stringMatching(
        /^flag --ca: is required \| choose --ca istiod .* or --ca istio-csr .* or --ca kubernetes-csr .* or --ca builtin .* or --ca file/,
      ),
    ]);
  });

  test.each<[Record<string, string>, string, string]>([
    [{ CA_ADDR: 'istiod.example:15012' }, 'istiod', 'environment CA_ADDR'],
    [{ CA_PROVIDER: 'Citadel' }, 'istiod', 'environment CA_PROVIDER'],
    [
      { CA_PROVIDER: 'istio-csr', CA_ADDR: 'csr.example:443' },
      'istio-csr',
      'environment CA_PROVIDER',
    ],
  ])('%j means %s', async (env, name, from) => {
    const { config, settings } = await load({ env });
    expect(config.ca).toEqual([name]);
    expect(settings.find((each) => each.name === 'ca')?.origin).toBe(from);
  });

  test('a provider that is none of ours is refused', async () => {
    expect(
      await problems({ env: { CA_PROVIDER: 'GkeWorkloadCertificate', CA_ADDR: 'x:1' } }),
    ).toEqual([
      expect.stringMatching(
        /^environment CA_PROVIDER: "GkeWorkloadCertificate" is not one of istiod, /,
      ),
    ]);
  });

  test('istiod and istio-csr are looked for where their own documentation puts them', async () => {
    expect((await load({ flags: { ca: 'istiod' } })).config.caAddresses).toEqual([
      'istiod.istio-system.svc:15012',
    ]);
    expect((await load({ flags: { ca: 'builtin,istio-csr' } })).config.caAddresses).toEqual([
      'cert-manager-istio-csr.cert-manager.svc:443',
    ]);
    expect((await load({ flags: { ca: 'builtin' } })).config.caAddresses).toEqual([]);
  });

  test('several in order, each with its address', async () => {
    const { config } = await load({
      flags: {
        ca: ['istio-csr', 'istiod', 'builtin'],
        'ca-address': ['a.example:1', 'b.example:2'],
      },
    });
    expect(config).toMatchObject({
      ca: ['istio-csr', 'istiod', 'builtin'],
      caAddresses: ['a.example:1', 'b.example:2'],
    });
    expect((await load({ file: 'ca: [istiod, builtin]' })).config.ca).toEqual([
      'istiod',
      'builtin',
    ]);
    expect(
      await problems({ flags: { ca: 'istiod,istio-csr' }, env: { CA_ADDR: 'a.example:1' } }),
    ).toEqual([
      'environment CA_ADDR: names 1 of them, for 2 (istiod, istio-csr) | give one address for each, in the order of --ca',
    ]);
  });

  test('PILOT_CERT_PROVIDER none is refused where a server is asked and nothing else says what judges it', async () => {
    const env = { PILOT_CERT_PROVIDER: 'none' };
    const identity = { namespace: 'shop', 'service-account': 'cart' };
    expect(await problems({ flags: { ca: 'istiod', ...identity }, env })).toEqual([
      expect.stringMatching(
        /^environment PILOT_CERT_PROVIDER: "none" leaves no roots to verify .* \| set --ca-root /,
      ),
    ]);
    await load({ flags: { ca: 'istiod', 'ca-root': 'SYSTEM', ...identity }, env });
    await load({ flags: { ca: 'builtin', ...identity }, env });
  });

  test('ISTIOD_SAN counts only where no address is given, as upstream; --ca-server-name always', async () => {
    const env = { ISTIOD_SAN: 'istiod.example' };
    expect((await load({ flags: { ca: 'istiod' }, env })).config.caServerName).toBe(
      'istiod.example',
    );
    const given = await load({ env: { ...env, CA_ADDR: 'x:1' } });
    expect(given.config.caServerName).toBeUndefined();
    expect(given.settings.find((each) => each.name === 'ca-server-name')).toEqual({
      name: 'ca-server-name',
      value: '',
      origin: 'not used: environment CA_ADDR says where',
    });
    expect(
      (await load({ env: { CA_ADDR: 'x:1' }, flags: { 'ca-server-name': 'y' } })).config
        .caServerName,
    ).toBe('y');
  });

  test('a Kubernetes signer has a name, and signs for ten minutes at least', async () => {
    const flags = {
      ca: 'kubernetes-csr',
      'signer-name': 'clusterissuers.cert-manager.io/istio-ca',
    };
    expect((await load({ flags })).config).toMatchObject({
      ca: ['kubernetes-csr'],
      signerName: flags['signer-name'],
      csrUsages: 'by-key',
    });
    expect(await problems({ flags: { ca: 'kubernetes-csr' } })).toEqual([
      'flag --signer-name: is required for kubernetes-csr | e.g. clusterissuers.cert-manager.io/istio-ca',
    ]);
    expect(await problems({ flags, env: { SECRET_TTL: '9m59s' } })).toEqual([
      'environment SECRET_TTL: must be at least 10m for kubernetes-csr: the Kubernetes API refuses less',
    ]);
  });

  test('PROV_CERT is for those who ask, not for mounted files', async () => {
    expect(
      await problems({ env: { FILE_MOUNTED_CERTS: 'true', PROV_CERT: './etc/certs' } }),
    ).toEqual([
      'environment PROV_CERT: cannot be given together with environment FILE_MOUNTED_CERTS',
    ]);
    expect(
      (await load({ flags: { ca: 'istiod' }, env: { PROV_CERT: './etc/certs' } })).config.provCert,
    ).toBe('./etc/certs');
  });

  test('headers come one a variable; their values are kept and never shown', async () => {
    const loaded = await load({
      flags: { ca: 'istiod' },
      env: { CA_HEADER_X_KEY: 's3cret, with a comma', CA_HEADER_y: 'a=b' },
    });
    expect([...loaded.config.caHeaders]).toEqual([
      ['x_key', 's3cret, with a comma'],
      ['y', 'a=b'],
    ]);
    expect(loaded.settings.find((each) => each.name === 'ca-header')).toEqual({
      name: 'ca-header',
      value: 'X_KEY=[redacted],y=[redacted]',
      origin: 'environment CA_HEADER_X_KEY, CA_HEADER_y',
    });
  });

  test.each<[string, Given]>([
    ['a flag', { flags: { ca: 'builtin' } }],
    ['the file', { file: 'ca: builtin' }],
  ])('%s is heard before CA_ADDR', async (_, given) => {
    expect((await load({ env: { CA_ADDR: 'x:1' }, ...given })).config.ca).toEqual(['builtin']);
  });

  test('FILE_MOUNTED_CERTS=true chooses files, unless a flag says otherwise', async () => {
    const env = { FILE_MOUNTED_CERTS: 'true', CA_ADDR: 'x:1' };
    expect((await load({ env })).config.ca).toEqual(['file']);
    expect((await load({ env, flags: { ca: 'builtin' } })).config.ca).toEqual(['builtin']);
    expect(await problems({ env: { FILE_MOUNTED_CERTS: 'false' } })).toEqual([
      expect.stringMatching(/^flag --ca: is required/),
    ]);
  });
});

describe("beside Istio's agent, which has port 15020", () => {
  const admin = ({ settings }: LoadedConfig) =>
    settings.find(({ name }) => name === 'admin-address');

  test.each(['PROXY_CONFIG', 'WORKLOAD_IDENTITY_SOCKET_FILE'])(
    'known by %s, health and metrics are on 15022',
    async (variable) => {
      const loaded = await loadBuiltin({
        env: { [variable]: variable === 'PROXY_CONFIG' ? '{}' : 'keyturn' },
      });
      expect(loaded.config.adminAddress).toBe('127.0.0.1:15022');
      expect(admin(loaded)!.origin).toBe(`beside Istio's agent, by environment ${variable}`);
    },
  );

  test('a process with many workloads moves too', async () => {
    const { config } = await loadBuiltin({
      env: { PROXY_CONFIG: '{}' },
      flags: { workloads: './workloads' },
    });
    expect(config.adminAddress).toBe('127.0.0.1:15022');
  });

  test.each([
    { flags: { 'admin-address': '0.0.0.0:1' } },
    { env: { KEYTURN_ADMIN_ADDRESS: '0.0.0.0:1' } },
    { file: 'admin-address: 0.0.0.0:1' },
  ])('unless they were put elsewhere by %j', async (given: Given) => {
    expect(
      (await loadBuiltin({ ...given, env: { PROXY_CONFIG: '{}', ...given.env } })).config
        .adminAddress,
    ).toBe('0.0.0.0:1');
  });

  test('nobody else moves', async () => {
    expect(admin(await loadBuiltin({}))).toMatchObject({
      value: '127.0.0.1:15020',
      origin: 'default',
    });
  });
});

describe("systemd's credentials", () => {
  const env = { CREDENTIALS_DIRECTORY: '/run/credentials/keyturn.service' };

  test('hold the token where nobody named another', async () => {
    const { config, settings } = await loadBuiltin({ env });
    expect(config.token).toBe('/run/credentials/keyturn.service/keyturn.join-token');
    expect(settings.find(({ name }) => name === 'token')!.origin).toBe(
      'environment CREDENTIALS_DIRECTORY',
    );
  });

  test.each([
    { flags: { token: './t' } },
    { env: { KEYTURN_TOKEN: './t' } },
    { file: 'token: ./t' },
  ])('give way to %j', async (given: Given) => {
    expect((await loadBuiltin({ ...given, env: { ...env, ...given.env } })).config.token).toBe(
      './t',
    );
  });
});

describe('mounted credentials', () => {
  let dir: string;
  const put = (under: string, names: readonly string[]) => {
    mkdirSync(join(dir, under), { recursive: true });
    for (const name of names) writeFileSync(join(dir, under, name), '');
  };
  const ALL = ['cert-chain.pem', 'key.pem', 'root-cert.pem'];
  const NEW = 'var/run/secrets/workload-spiffe-credentials';

  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'keyturn-credentials-'));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  test('their directory chooses files once it holds all three, and the origin says so', async () => {
    put(NEW, ALL.slice(1));
    expect(await problems({ cwd: dir })).toEqual([expect.stringMatching(/is required/)]);
    put(NEW, ALL);
    const loaded = await load({ cwd: dir, env: { CA_ADDR: 'x:1' } });
    expect(loaded.config).toMatchObject({
      ca: ['file'],
      credentialsDir: `./${NEW}`,
      id: undefined,
    });
    expect(loaded.settings.find((each) => each.name === 'ca')?.origin).toBe(
      `found certificates in ./${NEW}`,
    );
    expect((await load({ cwd: dir, flags: { ca: 'builtin' } })).config.ca).toEqual(['builtin']);
  });

  test('a credential bundle chooses files, and needs its roots', async () => {
    const bundle = { 'credential-bundle': '/x/bundle.pem' };
    const loaded = await load({ flags: { ...bundle, 'trust-bundle': '/x/roots.pem' } });
    expect(loaded.config).toMatchObject({
      ca: ['file'],
      credentialBundle: '/x/bundle.pem',
      trustBundle: '/x/roots.pem',
      id: undefined,
    });
    expect(loaded.settings.find((each) => each.name === 'ca')?.origin).toBe(
      'flag --credential-bundle',
    );
    expect(await problems({ flags: bundle })).toEqual([
      expect.stringMatching(/^flag --credential-bundle: needs --trust-bundle \| name/),
    ]);
    expect((await load({ flags: { ...bundle, ca: 'builtin' } })).config.ca).toEqual(['builtin']);
  });

  test("upstream's older directory is read where only that one has them", async () => {
    rmSync(join(dir, NEW), { recursive: true, force: true });
    put('etc/certs', ALL);
    expect((await load({ cwd: dir, flags: { ca: 'file' } })).config.credentialsDir).toBe(
      './etc/certs',
    );
    expect(
      (await load({ cwd: dir, flags: { ca: 'file', 'credentials-dir': './own' } })).config
        .credentialsDir,
    ).toBe('./own');
  });

  test('file-cert: names may point below the credentials directory', async () => {
    expect(
      (await load({ flags: { ca: 'file', 'credentials-dir': './own' } })).config.sdsFileDirs,
    ).toEqual(['./etc/certs', './own']);
    expect(
      (await load({ flags: { ca: 'file', 'credentials-dir': './own', 'sds-file-dir': '/x' } }))
        .config.sdsFileDirs,
    ).toEqual(['/x']);
    expect(
      (await load({ flags: { ca: 'file', 'sds-file-dir': ['/x', '/y'] } })).config.sdsFileDirs,
    ).toEqual(['/x', '/y']);
  });
});

describe('identity', () => {
  const WHOLE = 'spiffe://x.example/cart';
  const identity = async (given: Given) => {
    const { id } = (await loadBuiltin(given)).config;
    return id && formatSpiffeId(id);
  };

  test.each<[string, Given, string]>([
    ['the default', {}, 'spiffe://cluster.local/ns/default/sa/default'],
    [
      'parts by flag',
      { flags: { namespace: 'shop', 'service-account': 'cart' } },
      'spiffe://cluster.local/ns/shop/sa/cart',
    ],
    [
      'the pod',
      { env: { POD_NAMESPACE: 'shop', SERVICE_ACCOUNT: 'cart', TRUST_DOMAIN: 'td' } },
      'spiffe://td/ns/shop/sa/cart',
    ],
    [
      'a whole ID by flag beats the pod',
      { flags: { 'spiffe-id': WHOLE }, env: { POD_NAMESPACE: 'shop', TRUST_DOMAIN: 'td' } },
      WHOLE,
    ],
    [
      'a whole ID by file beats the pod',
      { file: `spiffe-id: ${WHOLE}`, env: { POD_NAMESPACE: 'shop' } },
      WHOLE,
    ],
    [
      'a whole ID by flag beats our variables',
      { flags: { 'spiffe-id': WHOLE }, env: { KEYTURN_NAMESPACE: 'shop' } },
      WHOLE,
    ],
    [
      'parts by flag beat a whole ID in the environment',
      {
        flags: { namespace: 'shop', 'service-account': 'till' },
        env: { KEYTURN_SPIFFE_ID: WHOLE },
      },
      'spiffe://cluster.local/ns/shop/sa/till',
    ],
  ])('%s', async (_, given, want) => expect(await identity(given)).toBe(want));

  test.each<[string, Given]>([
    ['flags', { flags: { 'spiffe-id': WHOLE, 'trust-domain': 'td' } }],
    ['variables', { env: { KEYTURN_SPIFFE_ID: WHOLE, KEYTURN_SERVICE_ACCOUNT: 'cart' } }],
    ['file', { file: `spiffe-id: ${WHOLE}\nnamespace: shop` }],
  ])('a whole ID and a part at the same level (%s) are refused', async (_, given) => {
    expect(await problems({ ...given, flags: { ca: 'builtin', ...given.flags } })).toEqual([
      expect.stringMatching(/spiffe-id|SPIFFE_ID.*: cannot be given together with/),
    ]);
  });

  test.each<[string, Given, string]>([
    [
      'a flag',
      { flags: { namespace: 'shop' }, env: { KEYTURN_SPIFFE_ID: WHOLE } },
      'is replaced by flag --namespace, without service-account',
    ],
    [
      'a variable',
      { env: { KEYTURN_SERVICE_ACCOUNT: 'till' }, file: `spiffe-id: ${WHOLE}` },
      ', without namespace',
    ],
    [
      'a trust domain',
      { flags: { 'trust-domain': 'td' }, env: { KEYTURN_SPIFFE_ID: WHOLE } },
      ', without namespace',
    ],
  ])(
    '%s that replaces a part of a whole ID is refused, since the rest would be a default',
    async (_, given, rule) => {
      expect(await problems({ ...given, flags: { ca: 'builtin', ...given.flags } })).toEqual([
        expect.stringContaining(rule),
      ]);
    },
  );

  test('mounted files need no identity; one of ours is held against them, the pod’s is not', async () => {
    const files = (given: Given) => identity({ ...given, flags: { ca: 'file', ...given.flags } });
    expect(await files({})).toBeUndefined();
    expect(
      await files({ env: { POD_NAMESPACE: 'shop', SERVICE_ACCOUNT: 'cart' } }),
    ).toBeUndefined();
    expect(await files({ flags: { namespace: 'shop' } })).toBe(
      'spiffe://cluster.local/ns/shop/sa/default',
    );
    expect(await files({ flags: { 'spiffe-id': WHOLE } })).toBe(WHOLE);
  });

  test('config show sees which parts decided', async () => {
    const { settings } = await loadBuiltin({ flags: { 'spiffe-id': WHOLE } });
    expect(settings.filter((each) => ['trust-domain', 'namespace'].includes(each.name))).toEqual([
      { name: 'trust-domain', value: 'x.example', origin: 'part of flag --spiffe-id' },
      { name: 'namespace', value: '', origin: 'not used: flag --spiffe-id' },
    ]);
  });

  test('parts that are each well but too long together are refused', async () => {
    expect(
      await problems({
        flags: { ca: 'builtin', namespace: 'n'.repeat(1500), 'service-account': 's'.repeat(1500) },
      }),
    ).toEqual([expect.stringMatching(/must not be longer than 2048 bytes/)]);
  });
});

describe('rotation', () => {
  test('the default jitter gives way to a small ratio, and the origin says so', async () => {
    const { config, settings } = await loadBuiltin({ env: { SECRET_GRACE_PERIOD_RATIO: '0.98' } });
    expect(config).toMatchObject({ renewRatio: 0.02, renewJitter: 0.01 });
    expect(settings.find((each) => each.name === 'renew-jitter')?.origin).toBe(
      'default (half of renew-ratio)',
    );
  });
});

test('readSettings gives what is right beside what is wrong', async () => {
  const report = await readSettings({
    flags: { ttl: '10', namespace: 'shop' },
    env: {},
    cwd: empty,
  });
  expect(report.loaded).toBeUndefined();
  expect(report.problems.map((each) => each.field)).toEqual(['flag --ttl', 'flag --ca']);
  expect(report.settings.find((each) => each.name === 'namespace')).toEqual({
    name: 'namespace',
    value: 'shop',
    origin: 'flag --namespace',
  });
  expect(report.settings.map((each) => each.name)).toEqual(SETTING_NAMES);
});
