import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { afterEach, expect, test } from '@jest/globals';
import { type Container, startContainer } from '../support/container';
import { peerPath } from '../support/peer-path';
import { describeWith, testWith } from '../support/peers';
import { getSecret } from '../support/sds-client';
import { until } from '../support/until';

const ROOT = resolve(__dirname, '../..');
const IDENTITY = [
  '--trust-domain',
  'example.org',
  '--namespace',
  'shop',
  '--service-account',
  'cart',
];

interface ImageConfig {
  readonly User: string;
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[];
  readonly Healthcheck: { readonly Test: readonly string[] };
}

describeWith('image')('the container image', () => {
  const rootfs = peerPath('image')!;
  const config = () =>
    (
      JSON.parse(readFileSync(join(dirname(rootfs), 'image.json'), 'utf8')) as {
        Docker: { config: ImageConfig };
      }
    ).Docker.config;
  const containers: Container[] = [];
  afterEach(async () => {
    for (const each of containers.splice(0)) await each.stop();
  });

  const start = (...flags: readonly string[]): Container => {
    const { Entrypoint, Cmd } = config();
    const container = startContainer(rootfs, [
      ...Entrypoint,
      ...Cmd,
      '--ca',
      'builtin',
      '--log-format',
      'json',
      ...IDENTITY,
      ...flags,
    ]);
    containers.push(container);
    return container;
  };
  const socketOf = ({ run }: Container) => join(run, 'secrets/workload-spiffe-uds/socket');
  const healthCheck = async (container: Container) =>
    (await container.exec(...config().Healthcheck.Test.slice(1))).code;

  test('H15 as user 1337 with a read-only root, no capability, no new privileges and the default seccomp profile it serves and rotates', async () => {
    expect(config().User).toBe('1337:1337');
    const container = start();
    await until('the socket', async () => existsSync(socketOf(container)));
    const first = await getSecret(socketOf(container), 'default');
    expect(first.chainPem).toMatch(/^-----BEGIN CERTIFICATE-----/);
    const { Uid, CapEff, CapBnd, NoNewPrivs, Seccomp } = await container.processStatus();
    expect({ Uid, CapEff, CapBnd, NoNewPrivs, Seccomp }).toEqual({
      Uid: '1337\t1337\t1337\t1337',
      CapEff: '0000000000000000',
      CapBnd: '0000000000000000',
      NoNewPrivs: '1',
      Seccomp: '2',
    });
    expect(await container.exec('/usr/local/bin/keyturn', 'rotate')).toMatchObject({ code: 0 });
    expect((await getSecret(socketOf(container), 'default')).chainPem).not.toBe(first.chainPem);
    expect(await container.stop()).toMatchObject({
      code: 0,
      output: expect.stringContaining('"agent stopped"'),
    });
  });

  test('the health check of the image is keyturn itself: 0 with a certificate, another code without', async () => {
    const container = start();
    await until('a healthy container', async () => (await healthCheck(container)) === 0);
    const waiting = startContainer(rootfs, [
      ...[
        '/usr/local/bin/keyturn',
        'run',
        '--ca',
        'istiod',
        '--ca-address',
        '127.0.0.1:1',
        '--ca-root',
        'SYSTEM',
        '--log-format',
        'json',
      ],
      ...IDENTITY,
    ]);
    containers.push(waiting);
    await until(
      'an agent that says that it has no certificate',
      async () => (await healthCheck(waiting)) === 75,
    );
  });

  test('nothing is in it but the program, the C library and what tells of them: no shell, no package manager, nothing setuid', () => {
    const files = filesBelow(rootfs);
    const programs = files.filter(
      (path) =>
        (lstatSync(join(rootfs, path)).mode & 0o111) !== 0 &&
        lstatSync(join(rootfs, path)).isFile(),
    );
    expect(programs.filter((path) => !/^\/(lib|lib64|usr\/lib)\//.test(path))).toEqual([
      '/usr/local/bin/keyturn',
    ]);
    expect(programs.filter((path) => !/\.so(\.\d+)*$/.test(path))).toEqual([
      '/usr/local/bin/keyturn',
    ]);
    expect(files.filter((path) => (lstatSync(join(rootfs, path)).mode & 0o6000) !== 0)).toEqual([]);
    expect(
      files.filter(
        (path) => lstatSync(join(rootfs, path)).isFile() && lstatSync(join(rootfs, path)).uid !== 0,
      ),
    ).toEqual([]);
  });

  testWith('cyclonedx')(
    'H18 its bill of materials is valid CycloneDX and names every package whose code or file is in it',
    () => {
      const path = join(rootfs, 'usr/local/share/doc/keyturn/sbom.cdx.json');
      const judge =
        'import sys; from cyclonedx.schema import SchemaVersion; from cyclonedx.validation.json import JsonStrictValidator; ' +
        'error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read()); print(error or "valid")';
      expect(execFileSync(peerPath('cyclonedx')!, ['-c', judge, path], { encoding: 'utf8' })).toBe(
        'valid\n',
      );
      const { components } = JSON.parse(readFileSync(path, 'utf8')) as {
        components: { name: string; version: string; purl: string }[];
      };
      const named = new Set(components.map(({ name, version }) => `${name} ${version}`));
      const licences = readFileSync(
        join(rootfs, 'usr/local/share/doc/keyturn/LICENSES.txt'),
        'utf8',
      );
      const bundled = [...licences.matchAll(/^(@?[a-z][\w./-]*) (\d+\.\d+\.\d+\S*) \(/gm)].map(
        ([, name, version]) => `${name} ${version}`,
      );
      expect(bundled.length).toBeGreaterThan(10);
      expect(bundled.filter((each) => !named.has(each))).toEqual([]);
      const debian = components
        .filter(({ purl }) => purl.startsWith('pkg:deb/debian/'))
        .map(({ name }) => name);
      expect(debian.sort()).toEqual(readdirSync(join(rootfs, 'var/lib/dpkg/status.d')).sort());
      expect(debian).toContain('libc6');
    },
  );

  if (process.env.KEYTURN_TEST === 'full') {
    test('H18 two builds of the same sources have one digest', () => {
      const build = () => {
        const args = ['--image', '--tag', 'keyturn-test-again', '--no-cache'];
        const { status, stdout, stderr } = spawnSync(join(ROOT, 'scripts/build'), args, {
          encoding: 'utf8',
        });
        if (status !== 0) throw new Error(stderr);
        return stdout;
      };
      expect(build()).toBe(build());
    }, 900_000);
  }
});

/** Files and links below a directory, as paths from it, e.g. `/etc/passwd`. No link is followed: it may lead out of there. */
function filesBelow(root: string, dir = root): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    const path = join(dir, entry.name);
    return entry.isDirectory() ? filesBelow(root, path) : [path.slice(root.length)];
  });
}
