import { execFileSync, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect } from '@jest/globals';
import { testWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

const ROOT = resolve(__dirname, '../..');
const PARTS = join(ROOT, 'scripts/deploy/machine');
const UNITS = ['keyturn.service', 'keyturn-ca.service', 'keyturn-envoy.service'] as const;
const test = testWith('systemd-tools');

/** A root directory with the package's units and everything that they start. */
function machineTree(): string {
  const tree = tempDir();
  const script = `set -e; source scripts/lib/common.sh; source scripts/lib/package.sh; package_tree "$0" node "$root/dist/keyturn"`;
  execFileSync('bash', ['-c', script, tree], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
  return tree;
}

describe('H16 the units of a machine', () => {
  test.each(UNITS)(
    '%s is exposed by at most 1.5 of 10, as systemd-analyze security judges',
    (unit) => {
      const { stdout, status } = spawnSync(
        'systemd-analyze',
        ['security', '--offline=true', '--threshold=15', '--no-pager', join(PARTS, unit)],
        {
          encoding: 'utf8',
        },
      );
      const score = Number(/Overall exposure level for .*: (\d+\.\d)/.exec(stdout)?.[1]);
      process.stderr.write(`H16 ${unit}: ${score}\n`);
      expect(score).toBeLessThanOrEqual(1.5);
      expect(status).toBe(0);
    },
  );

  test('hold nothing that systemd does not know or cannot find', () => {
    const tree = machineTree();
    const { execPath } = process;
    // Envoy is for the machine's owner to install.
    execFileSync('install', ['-D', '-m', '0755', execPath, join(tree, 'usr/bin/envoy')]);
    const units = UNITS.map((unit) => join(tree, 'usr/lib/systemd/system', unit));
    const { stderr } = spawnSync(
      'systemd-analyze',
      ['verify', '--man=no', '--root', tree, ...UNITS],
      { encoding: 'utf8' },
    );
    // What systemd itself brings is not in the tree; whatever else cannot be found is missing.
    const foreign = /: Unit (sysinit|basic|shutdown)\.target not found\.$/;
    const said = stderr.split('\n').filter((line) => line !== '' && !foreign.test(line));
    expect({ said, units: units.length }).toEqual({ said: [], units: 3 });
  });

  test.each(UNITS)('%s lets no settings mistake restart it, and dumps no core', (unit) => {
    const text = readFileSync(join(PARTS, unit), 'utf8');
    expect(text).toMatch(/^LimitCORE=0$/m);
    if (unit === 'keyturn-envoy.service') expect(text).toMatch(/^Type=exec$/m);
    else
      expect(text).toMatch(/^Type=notify\n.*^RestartPreventExitStatus=64 78\n.*^WatchdogSec=60$/ms);
    expect(text).not.toMatch(/^MemoryDenyWriteExecute/m);
  });
});

describe('the Debian package', () => {
  /** `dpkg-deb` on the package of the form for Node.js, which is quick to make. */
  const dpkg = (...args: readonly string[]) => execFileSync('dpkg-deb', args, { encoding: 'utf8' });
  const make = (epoch: string) => {
    const env = { ...process.env, SOURCE_DATE_EPOCH: epoch };
    return execFileSync(join(ROOT, 'scripts/build'), ['--deb', '--form', 'node'], {
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  };

  test('holds the program, settings, units, users, manual and completions, all of root, and the same bytes twice', () => {
    const first = readFileSync(make('1700000000'));
    const path = make('1700000000');
    expect(Buffer.compare(first, readFileSync(path))).toBe(0);
    const listing = dpkg('--contents', path)
      .split('\n')
      .filter((line) => line.startsWith('-'))
      .map((line) => line.replace(/ +\d+ 2023-11-14 22:13 \./, ' '));
    expect(listing.sort()).toEqual(
      [
        '-rw-r--r-- root/root /etc/keyturn/ca.env',
        '-rw-r--r-- root/root /etc/keyturn/keyturn.yaml',
        '-rwxr-xr-x root/root /usr/bin/keyturn',
        '-rwxr-xr-x root/root /usr/lib/keyturn/keyturn',
        '-rwxr-xr-x root/root /usr/lib/keyturn/node',
        ...UNITS.map((unit) => `-rw-r--r-- root/root /usr/lib/systemd/system/${unit}`),
        '-rw-r--r-- root/root /usr/lib/sysusers.d/keyturn.conf',
        '-rw-r--r-- root/root /usr/share/bash-completion/completions/keyturn',
        '-rw-r--r-- root/root /usr/share/doc/keyturn/changelog.gz',
        '-rw-r--r-- root/root /usr/share/doc/keyturn/copyright',
        '-rw-r--r-- root/root /usr/share/fish/vendor_completions.d/keyturn.fish',
        '-rw-r--r-- root/root /usr/share/man/man1/keyturn.1.gz',
        '-rw-r--r-- root/root /usr/share/zsh/vendor-completions/_keyturn',
      ].sort(),
    );
    expect(dpkg('--field', path, 'Package', 'Depends')).toBe(
      'Package: keyturn\nDepends: libc6 (>= 2.28), systemd (>= 252)\n',
    );
    const control = tempDir();
    dpkg('--control', path, control);
    expect(readdirSync(control).sort()).toEqual([
      'conffiles',
      'control',
      'md5sums',
      'postinst',
      'postrm',
      'prerm',
    ]);
    expect(readFileSync(join(control, 'conffiles'), 'utf8')).toBe(
      '/etc/keyturn/ca.env\n/etc/keyturn/keyturn.yaml\n',
    );
    const root = tempDir();
    dpkg('--extract', path, root);
    execFileSync('md5sum', ['--check', '--quiet', join(control, 'md5sums')], { cwd: root });
    for (const script of ['postinst', 'prerm', 'postrm'])
      execFileSync('sh', ['-n', join(control, script)]);
  });
});
