import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { parse } from 'yaml';
import { keyturn } from '../support/command-line';
import { peerPath } from '../support/peer-path';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

const SHOP = readFileSync(join(__dirname, 'inject/shop.yaml'), 'utf8');
const INJECTED = readFileSync(join(__dirname, 'inject/shop.injected.yaml'), 'utf8');
const POD =
  'apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    image: b\n';
const FLAGS = [
  '--join',
  'envoy',
  '--ca-address',
  'keyturn-ca.keyturn.svc:15012',
  '--trust-domain',
  'example.org',
  '--image',
  'example.org/keyturn:1',
];

/** A directory with files in it. */
function withFiles(files: Readonly<Record<string, string>>): string {
  const cwd = tempDir();
  for (const [name, text] of Object.entries(files)) writeFileSync(join(cwd, name), text);
  return cwd;
}

describe('keyturn inject', () => {
  test('adds the agent to what runs in pods, keeps every other line, and says what it did', async () => {
    const cwd = withFiles({ 'shop.yaml': SHOP });
    const { code, stdout, stderr } = await keyturn(['inject', '-f', 'shop.yaml', ...FLAGS], {
      cwd,
    });
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: `keyturn: shop.yaml document 1, Service shop/cart: unchanged: not a kind that inject supports
keyturn: shop.yaml document 2, Deployment shop/cart: injected
keyturn: shop.yaml document 3, CronJob shop/report: left alone, as its keyturn.dev/inject says
`,
    });
    expect(stdout).toBe(INJECTED);
  });

  test('changes nothing the second time, and says so for programs too', async () => {
    const cwd = tempDir();
    const { code, stdout, stderr } = await keyturn(['inject', '-f', '-', ...FLAGS, '-o', 'json'], {
      cwd,
      stdin: INJECTED,
    });
    expect({ code, same: stdout === INJECTED }).toEqual({ code: 0, same: true });
    expect(
      stderr
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))[1],
    ).toEqual({
      file: 'standard input',
      object: 'document 2, Deployment shop/cart',
      outcome: 'unchanged',
      notes: [],
    });
  });

  test('takes everything out again, to the octet, also from what is now to be left alone', async () => {
    const cwd = withFiles({ 'shop.yaml': INJECTED });
    const { code, stdout, stderr } = await keyturn(
      ['inject', '-f', 'shop.yaml', '--in-place', '--remove'],
      { cwd },
    );
    expect({ code, stdout, stderr }).toEqual({
      code: 0,
      stdout: '',
      stderr: `keyturn: shop.yaml document 1, Service shop/cart: unchanged: not a kind that inject supports
keyturn: shop.yaml document 2, Deployment shop/cart: removed what was injected
keyturn: shop.yaml document 3, CronJob shop/report: has nothing that was injected
`,
    });
    expect(readFileSync(join(cwd, 'shop.yaml'), 'utf8')).toBe(SHOP);
    const leftAlone = INJECTED.replace(
      'keyturn.dev/injected: "true"',
      '$&\n        keyturn.dev/inject: "false"',
    );
    const again = await keyturn(['inject', '-f', '-', '--remove'], { cwd, stdin: leftAlone });
    expect(again.stdout).not.toMatch(/keyturn(?!\.dev\/inject:)/);
  });

  test('prints several files as one stream of documents', async () => {
    const cwd = withFiles({
      'a.yaml': POD.trimEnd(),
      'b.yaml': `# b\n---\n${POD}`,
      'c.json': '{"kind": "ConfigMap", "apiVersion": "v1"}',
    });
    const { code, stdout } = await keyturn(
      ['inject', '-f', 'a.yaml', '-f', 'b.yaml', '-f', 'c.json'],
      { cwd },
    );
    expect(code).toBe(0);
    expect(stdout.match(/^(?:---|# b|kind: .*|\{.*)$/gm)).toEqual([
      'kind: Pod',
      '# b',
      '---',
      'kind: Pod',
      '---',
      '{"kind": "ConfigMap", "apiVersion": "v1"}',
    ]);
  });

  test('writes files anew in place, through links and with their modes, and only those that change', async () => {
    const cwd = withFiles({ 'a.yaml': POD, 'other.yaml': 'apiVersion: v1\nkind: Secret\n' });
    mkdirSync(join(cwd, 'real'));
    writeFileSync(join(cwd, 'real/b.yaml'), POD);
    symlinkSync('real/b.yaml', join(cwd, 'b.yaml'));
    chmodSync(join(cwd, 'real/b.yaml'), 0o640);
    const untouched = statSync(join(cwd, 'other.yaml')).ino;
    const { code, stdout } = await keyturn(
      ['inject', '--in-place', '-f', 'a.yaml', '-f', 'b.yaml', '-f', 'other.yaml'],
      { cwd },
    );
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
    const [a, b] = ['a.yaml', 'real/b.yaml'].map((name) => readFileSync(join(cwd, name), 'utf8'));
    expect(a).toContain('- name: keyturn\n');
    expect(b).toBe(a);
    expect(statSync(join(cwd, 'real/b.yaml')).mode & 0o777).toBe(0o640);
    expect(statSync(join(cwd, 'other.yaml')).ino).toBe(untouched);
  });

  test('prints and writes nothing where one of its documents cannot be injected, and names each field', async () => {
    const host = POD.replace('spec:\n', 'spec:\n  hostNetwork: true\n');
    const cwd = withFiles({
      'good.yaml': POD,
      'bad.yaml': `${POD}---\n${host}`,
      'broken.yaml': 'a: [',
    });
    for (const more of [[], ['--in-place']]) {
      const { code, stdout, stderr } = await keyturn(
        ['inject', '-f', 'good.yaml', '-f', 'bad.yaml', '-f', 'broken.yaml', ...more],
        {
          cwd,
        },
      );
      expect({ code, stdout }).toEqual({ code: 65, stdout: '' });
      expect(stderr.split('\n').filter((line) => line.startsWith('keyturn: error'))).toEqual([
        expect.stringMatching(
          /error: bad.yaml:15 document 2, Pod a, spec.hostNetwork: must not be true: the health port/,
        ),
        expect.stringMatching(/error: broken.yaml:2: is not YAML/),
      ]);
    }
    expect(readFileSync(join(cwd, 'good.yaml'), 'utf8')).toBe(POD);
  });

  test('takes defaults from a file, flags before it, and nothing from the environment', async () => {
    const cwd = withFiles({
      'a.yaml': POD,
      'keyturn.yaml': 'trust-domain: example.org\nttl: 1h\nca: istio-csr\n',
    });
    const env = {
      KEYTURN_TTL: '7h',
      TRUST_DOMAIN: 'shell.example',
      KUBECONFIG: '/nowhere',
      POD_NAMESPACE: 'no',
    };
    const { stdout } = await keyturn(
      ['inject', '-f', 'a.yaml', '--config', 'keyturn.yaml', '--ttl', '2h'],
      { cwd, env },
    );
    expect(stdout.match(/- --.*/g)).toEqual([
      '- --ca=istio-csr',
      '- --ca-address=cert-manager-istio-csr.cert-manager.svc:443',
      '- --trust-domain=example.org',
      '- --ttl=2h',
      '- --admin-address=0.0.0.0:15020',
    ]);
  });

  test('puts an Envoy beside the agent, with the listeners that its flags say', async () => {
    const cwd = withFiles({ 'a.yaml': POD });
    const { stdout } = await keyturn(
      [
        'inject',
        '-f',
        'a.yaml',
        '--envoy',
        'envoy:1',
        '--app',
        '127.0.0.1:3000',
        '--peer',
        'b.shop.svc:8443',
      ],
      { cwd },
    );
    expect(stdout).toContain('- name: keyturn-envoy');
    expect(stdout).toContain('"port_value": 3000');
    expect(stdout).toContain('"address": "b.shop.svc"');
    expect(stdout).toContain('"id": "$(POD_NAME).$(POD_NAMESPACE)"');
  });

  testWith('envoy')('gives an Envoy a command line that Envoy accepts', async () => {
    const cwd = withFiles({ 'a.yaml': POD });
    const { stdout } = await keyturn(
      [
        'inject',
        '-f',
        'a.yaml',
        '--envoy',
        'envoy:1',
        '--peer',
        '127.0.0.1:8444',
        '--listen',
        '0.0.0.0:8443',
      ],
      { cwd },
    );
    const [, envoy] = parse(stdout).spec.initContainers;
    const { status, stderr } = spawnSync(
      peerPath('envoy')!,
      [...envoy.args, '--mode', 'validate'],
      { encoding: 'utf8' },
    );
    expect({ status, stderr: stderr.match(/.*(?:error|rror initializing).*/g) }).toEqual({
      status: 0,
      stderr: null,
    });
  });

  test.each([
    [[]],
    [
      [
        '--ca',
        'istio-csr,istiod',
        '--cluster-id',
        'west',
        '--ttl',
        '1h',
        '--renew-ratio',
        '0.4',
        '--key-algorithm',
        'rsa-2048',
      ],
    ],
    [
      [
        '--ca',
        'kubernetes-csr',
        '--signer-name',
        'example.org/mesh',
        '--root-configmap',
        'roots',
        '--admin-address',
        '[::]:15022',
      ],
    ],
    [
      [
        '--sds-socket-mode',
        '0666',
        '--crl',
        'http://ca.example.org/crl.pem',
        '--log-format',
        'json',
        '--trust-domain',
        'example.org',
      ],
    ],
  ])('gives the agent flags that it understands: %j', async (flags) => {
    const cwd = withFiles({ 'a.yaml': POD });
    const { stdout } = await keyturn(['inject', '-f', 'a.yaml', ...flags], { cwd });
    const [agent] = parse(stdout).spec.initContainers;
    const [run, ...settings] = agent.args;
    expect(run).toBe('run');
    const env = { POD_NAMESPACE: 'shop', SERVICE_ACCOUNT: 'cart' };
    const shown = await keyturn(['config', 'show', '--output', 'json', ...settings], {
      cwd: '/',
      env,
    });
    expect({ code: shown.code, stderr: shown.stderr }).toEqual({ code: 0, stderr: '' });
    expect(shown.stdout).toMatch(/spiffe:\/\/[a-z.]+\/ns\/shop\/sa\/cart/);
  });

  test.each([
    [
      ['--ca', 'builtin'],
      78,
      'flag --ca: cannot be builtin for pods: every pod would be an authority of its own',
    ],
    [['--ca', 'file'], 78, 'flag --ca: cannot be file for pods: inject mounts no certificates'],
    [['--ca', 'kubernetes-csr'], 78, 'flag --signer-name: is required'],
    [['--crl', './crl.pem'], 78, 'flag --crl: must be a URL: a pod has no such file'],
    [['--admin-address', '127.0.0.1:15020'], 78, 'flag --admin-address: must be all addresses'],
    [['--admin-address', '0.0.0.0:0'], 78, 'flag --admin-address: must name a port'],
    [['--config', 'settings.yaml'], 78, 'file settings.yaml: sds-socket: cannot be said for pods'],
    [['--trust-domain', 'No!'], 78, 'flag --trust-domain'],
    [['--image', 'a b'], 64, 'flag --image: must be an image'],
    [['--memory-limit', 'much'], 64, 'flag --memory-limit: must be a quantity'],
    [['--root-configmap', 'A'], 64, 'flag --root-configmap: must be a name of a ConfigMap'],
    [['--join', 'A'], 64, 'flag --join: must be a name of a container'],
    [['--listen', '0.0.0.0:1'], 64, 'flag --listen: is for the Envoy of --envoy'],
    [
      ['--envoy', 'x', '--join', 'y'],
      64,
      "option '--envoy <image>' cannot be used with option '--join <container>'",
    ],
    [['--envoy', 'x', '--listen', '0.0.0.0:0'], 78, 'flag --listen: must name a port'],
    [['--envoy', 'x', '--caller', 'nobody'], 78, 'spiffe id'],
    [['-f', 'a.yaml'], 64, 'flag --filename: a.yaml is given twice'],
    [['-f', '-', '--in-place'], 64, 'flag --in-place: standard input cannot be written anew'],
    [
      ['--remove', '--ttl', '1h'],
      64,
      "option '--remove' cannot be used with option '--ttl <duration>'",
    ],
    [
      ['--remove', '--envoy', 'x'],
      64,
      "option '--remove' cannot be used with option '--envoy <image>'",
    ],
    [['-f', 'missing.yaml'], 66, 'there is no such file'],
  ])('%j is refused', async (flags, code, message) => {
    const cwd = withFiles({ 'a.yaml': POD, 'settings.yaml': 'sds-socket: /x\n' });
    const result = await keyturn(['inject', '-f', 'a.yaml', ...flags], { cwd });
    expect({ code: result.code, stdout: result.stdout }).toEqual({ code, stdout: '' });
    expect(result.stderr).toContain(message);
  });
});
