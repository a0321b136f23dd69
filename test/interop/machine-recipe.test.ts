import { execFileSync } from 'node:child_process';
import { realpathSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { envoyBinary } from '../support/envoy-binary';
import { createMachine, type Machine } from '../support/machine';
import { describeWith } from '../support/peers';
import { recipeOf } from '../support/recipe';

const ROOT = resolve(__dirname, '../..');
/** What a clone has, as far as the recipe needs it, with what was built there. */
const CLONE =
  'agent ca-client sds scripts dist package.json package-lock.json tsconfig.json .npmrc LICENSE CHANGELOG.md';

describeWith(
  'systemd-tools',
  'systemd',
  'envoy',
)('the recipe for a machine', () => {
  let machine: Machine;

  beforeAll(async () => {
    execFileSync(join(ROOT, 'scripts/build'), ['--deb', '--if-changed'], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const npm = dirname(
      dirname(realpathSync(execFileSync('which', ['npm'], { encoding: 'utf8' }).trim())),
    );
    machine = createMachine({
      '/usr/local/bin/envoy': envoyBinary(),
      '/usr/local/bin/node': join(ROOT, 'node_modules/node/bin/node'),
      '/usr/local/lib/node_modules/npm': npm,
      '/srv/keyturn/node_modules': join(ROOT, 'node_modules'),
    });
    execFileSync(
      'bash',
      [
        '-c',
        `mkdir -p "$0/srv/keyturn/node_modules" && cp -a ${CLONE} "$0/srv/keyturn/"`,
        machine.dir,
      ],
      { cwd: ROOT },
    );
    await machine.boot();
    machine.run('ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm');
    // It stands for the name that a person would have in DNS, and root needs no sudo.
    machine.run('echo 127.0.0.1 ca.example.org >> /etc/hosts');
    machine.write(
      '/srv/recipe',
      `set -e\nsudo() { "$@"; }\ncd /srv/keyturn\nexport HOME=/srv\n${recipeOf('docs/machine.md', 'Install')}`,
    );
  }, 300_000);

  afterAll(async () => machine?.powerOff(), 60_000);

  test('leads, word by word, from nothing to an Envoy with a certificate', () => {
    expect(machine.run('bash /srv/recipe 2>&1')).toMatch(
      /Active: active \(running\).*Status: "spiffe:\/\/example\.org\/ns\/shop\/sa\/cart: certificate \w+ until 20/s,
    );
    for (const unit of ['keyturn', 'keyturn-ca', 'keyturn-envoy'])
      expect(machine.unit(unit, 'ActiveState').ActiveState).toBe('active');
  });
});
