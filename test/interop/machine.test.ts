import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { AgentStatus } from '../../agent/admin/agent-view';
import { envoyBinary } from '../support/envoy-binary';
import { underLoad } from '../support/load';
import { createMachine, type Machine } from '../support/machine';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';
import { until } from '../support/until';

const ROOT = resolve(__dirname, '../..');
const BUILD = join(ROOT, 'scripts/build');
const INSTALL = '/opt/keyturn/scripts/install-vm';
const CONFIG = '--config /etc/keyturn/keyturn.yaml';
const ID = 'spiffe://example.org/ns/shop/sa/cart';

/** The same package with a higher version, as an upgrade brings it. */
function nextVersion(deb: string): string {
  const dir = tempDir();
  execFileSync('dpkg-deb', ['-R', deb, join(dir, 'tree')]);
  execFileSync('sed', ['-i', 's/^Version: .*/Version: 99.0.0/', join(dir, 'tree/DEBIAN/control')]);
  execFileSync('dpkg-deb', [
    '--root-owner-group',
    '-Zzstd',
    '-z1',
    '-b',
    join(dir, 'tree'),
    join(dir, 'next.deb'),
  ]);
  return join(dir, 'next.deb');
}

const FORMS = process.env.KEYTURN_TEST === 'full' ? ['standalone', 'node'] : ['standalone'];

// One story of one machine: each test goes on where the one before it ended.
const describeMachine = describeWith('systemd-tools', 'systemd', 'envoy');
describeMachine.each(FORMS)('G14 H16 a machine with the package of form %s', (form) => {
  let machine: Machine;

  const status = () =>
    JSON.parse(machine.try(`keyturn status ${CONFIG} --output json`).stdout) as AgentStatus;
  const serial = () => status().workloads[0]!.certificate!.serial;
  const agent = () =>
    machine.unit(
      'keyturn',
      'MainPID',
      'ActiveState',
      'SubState',
      'StatusText',
      'NRestarts',
      'Result',
      'ExecMainStatus',
    );
  const bundle = () =>
    machine.run(
      `keyturn vm bundle --ca-dir /var/lib/keyturn-ca --spiffe-id ${ID} --ca-address ca.test:15012 --out /srv/vm.join --force`,
    );

  beforeAll(async () => {
    const deb = execFileSync(BUILD, ['--deb', '--if-changed', '--form', form], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    }).trim();
    machine = createMachine({ '/usr/local/bin/envoy': envoyBinary(), '/opt/keyturn': ROOT });
    machine.put(deb, '/srv/keyturn.deb');
    machine.put(nextVersion(deb), '/srv/next.deb');
    await machine.boot();
    machine.run('echo 127.0.0.1 ca.test >> /etc/hosts');
  }, 300_000);

  afterAll(async () => machine?.powerOff(), 60_000);

  test('has the package with its users, and nothing of it runs before somebody says who the machine is', () => {
    expect(
      machine.try(
        `setpriv --reuid nobody --regid nogroup --clear-groups ${INSTALL} --package /srv/keyturn.deb`,
      ),
    ).toMatchObject({
      code: 1,
      stderr: 'scripts/install-vm: only root may install services: sudo scripts/install-vm\n',
    });
    expect(machine.try(`${INSTALL} --package /etc/passwd`).stderr).toContain(
      'is no package of keyturn',
    );
    const { code, stderr } = machine.try(`${INSTALL} --package /srv/keyturn.deb`);
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: expect.stringMatching(
        /^installed keyturn \d.*\nnext: .*scripts\/install-vm --join FILE/m,
      ),
    });
    expect(machine.run('id -un keyturn keyturn-ca keyturn-envoy')).toBe(
      'keyturn\nkeyturn-ca\nkeyturn-envoy\n',
    );
    expect(machine.try('systemctl is-active keyturn keyturn-ca keyturn-envoy').stdout).toBe(
      'inactive\ninactive\ninactive\n',
    );
    expect(machine.run('keyturn --version')).toMatch(/^keyturn \d/);
  });

  test('without an identity the agent ends with 78, and is not started again', async () => {
    expect(machine.try('systemctl start keyturn').code).toBe(1);
    await new Promise((done) => setTimeout(done, 2_500));
    expect(agent()).toMatchObject({
      ActiveState: 'failed',
      Result: 'exit-code',
      ExecMainStatus: '78',
      NRestarts: '0',
    });
    expect(machine.run('journalctl -u keyturn --no-pager')).toContain('flag --ca: is required');
  });

  test('becomes an authority', () => {
    machine.write(
      '/etc/keyturn/ca.env',
      'KEYTURN_TRUST_DOMAIN=example.org\nCA_SERVE_OPTIONS=--server-names ca.test\n',
    );
    machine.run('systemctl enable --now keyturn-ca');
    const { ActiveState, StatusText } = machine.unit('keyturn-ca', 'ActiveState', 'StatusText');
    expect(ActiveState).toBe('active');
    expect(StatusText).toMatch(
      /^certifying for example\.org at 127\.0\.0\.1:15012, signer until 20/,
    );
  });

  test('joins it by one file, and is ready when systemctl start returns', async () => {
    bundle();
    const { code, stdout, stderr } = machine.try(
      `${INSTALL} --package /srv/keyturn.deb --join /srv/vm.join`,
    );
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr: expect.stringMatching(/^keyturn \d.* is installed already\nidentity +spiffe:/),
    });
    expect(stdout).toBe(`${statusText()}\n`);
    const { MainPID } = agent();
    machine.run(`${INSTALL} --package /srv/keyturn.deb`);
    expect(agent().MainPID).toBe(MainPID);
    machine.run('systemctl restart keyturn');
    // The socket serves; the first certificate may still be under way.
    expect(machine.run('stat -c "%a %U %G" /run/keyturn/sds.sock /run/keyturn')).toBe(
      '660 keyturn keyturn\n750 keyturn keyturn\n',
    );
    await until('a certificate', async () => machine.try(`keyturn status ${CONFIG}`).code === 0);
    expect(agent()).toMatchObject({ ActiveState: 'active', SubState: 'running', NRestarts: '0' });
    await until('a status text', async () => agent().StatusText === statusText());
  });

  const statusText = () => {
    const { serial: now, notAfter, renewAt } = status().workloads[0]!.certificate!;
    return `${ID}: certificate ${now} until ${notAfter}, renewal at ${renewAt}`;
  };

  test('has an Envoy of another user that takes the certificate and every later one', async () => {
    machine.run(
      `keyturn bootstrap ${CONFIG} > /etc/keyturn/envoy.yaml && chmod 644 /etc/keyturn/envoy.yaml`,
    );
    machine.run('systemctl enable --now keyturn-envoy');
    await until('an Envoy that has the certificate', async () => acknowledged() === serial());
    const before = serial();
    machine.run('systemctl reload keyturn');
    expect(serial()).not.toBe(before);
    await until('an Envoy that has the next', async () => acknowledged() === serial());
    expect(
      machine.run(`stat -c %U /proc/${machine.unit('keyturn-envoy', 'MainPID').MainPID}`),
    ).toBe('keyturn-envoy\n');
  });

  /** Between the last stop of an agent and the start of the next. */
  const gapMs = () => {
    const { InactiveEnterTimestampMonotonic: from, ActiveEnterTimestampMonotonic: to } =
      machine.unit('keyturn', 'InactiveEnterTimestampMonotonic', 'ActiveEnterTimestampMonotonic');
    return (Number(to) - Number(from)) / 1_000;
  };

  const acknowledged = () => {
    const names = status().workloads[0]!.sds.streams.flatMap(({ names }) => names);
    return names.find(
      ({ name, sentVersion, acknowledgedVersion }) =>
        name === 'default' && sentVersion === acknowledgedVersion,
    )?.sentSerial;
  };

  test('keeps the processes in the bounds of their units, and the key to its owner', () => {
    for (const unit of ['keyturn', 'keyturn-ca', 'keyturn-envoy']) {
      const { MainPID: pid } = machine.unit(unit, 'MainPID');
      const facts = machine.run(`cat /proc/${pid}/status /proc/${pid}/limits`);
      expect(facts).toMatch(/^NoNewPrivs:\s+1$/m);
      expect(facts).toMatch(/^CapEff:\s+0+$/m);
      expect(facts).toMatch(/^CapBnd:\s+0+$/m);
      expect(facts).toMatch(/^Seccomp:\s+2$/m);
      expect(facts).toMatch(/^Max core file size\s+0\s+0\s/m);
    }
    expect(
      machine.run(
        'stat -L -c "%a %U" /var/lib/keyturn /var/lib/keyturn/state /var/lib/keyturn/state/key.pem /var/lib/keyturn-ca',
      ),
    ).toBe('700 keyturn\n700 keyturn\n600 keyturn\n700 keyturn-ca\n');
    for (const path of [
      '/var/lib/keyturn/state/key.pem',
      '/var/lib/keyturn-ca/ca-key.pem',
      '/etc/credstore/keyturn.join-token',
    ])
      expect(
        machine.try(
          `setpriv --reuid keyturn-envoy --regid keyturn-envoy --groups keyturn cat ${path}`,
        ).code,
      ).toBe(1);
    expect(machine.journal()).not.toContain(
      machine.read('/etc/credstore/keyturn.join-token').trim(),
    );
  });

  test('ends an agent that does nothing any more by its watchdog, and the next serves what was kept', async () => {
    machine.write('/etc/systemd/system/keyturn.service.d/test.conf', '[Service]\nWatchdogSec=3\n');
    machine.run('systemctl daemon-reload && systemctl restart keyturn');
    const before = { pid: agent().MainPID, serial: serial() };
    // It feeds the watchdog, so it lives for longer than that.
    await new Promise((done) => setTimeout(done, 4_000));
    expect(agent().MainPID).toBe(before.pid);
    machine.run(`kill -STOP ${before.pid}`);
    await until(
      'another process',
      async () => !['0', before.pid].includes(agent().MainPID) && agent().ActiveState === 'active',
    );
    expect(machine.run('journalctl -u keyturn --no-pager')).toContain(
      'Watchdog timeout (limit 3s)!',
    );
    expect(machine.run('journalctl -u keyturn --no-pager')).toMatch(
      /Main process exited, code=(killed|dumped), status=6\/ABRT/,
    );
    expect(agent().NRestarts).toBe('1');
    expect(serial()).toBe(before.serial);
    machine.run(
      'rm -r /etc/systemd/system/keyturn.service.d && systemctl daemon-reload && systemctl restart keyturn',
    );
  });

  test('does not start an agent again that was given wrong settings, and takes one that was killed for alive', async () => {
    const before = serial();
    machine.run(`kill -KILL ${agent().MainPID}`);
    // Where systemd has not noticed the end yet, nobody answers.
    const answers = () => machine.try(`keyturn status ${CONFIG}`).code === 0;
    await until(
      'a restarted agent',
      async () => agent().ActiveState === 'active' && answers() && serial() === before,
    );
    const good = machine.read('/etc/keyturn/keyturn.yaml');
    machine.write('/etc/keyturn/keyturn.yaml', `${good}\nttl: forever\n`);
    expect(machine.try('systemctl restart keyturn').code).toBe(1);
    await new Promise((done) => setTimeout(done, 2_500));
    expect(agent()).toMatchObject({
      ActiveState: 'failed',
      Result: 'exit-code',
      ExecMainStatus: '78',
    });
    expect(machine.run('journalctl -u keyturn --no-pager')).toContain('keyturn.yaml: ttl');
    machine.write('/etc/keyturn/keyturn.yaml', good);
    machine.run('systemctl reset-failed keyturn && systemctl start keyturn');
    expect(serial()).toBe(before);
  });

  test('is upgraded while Envoy runs: settings, identity and certificate stay', async () => {
    const before = {
      serial: serial(),
      agent: agent().MainPID,
      envoy: machine.unit('keyturn-envoy', 'MainPID').MainPID,
    };
    const settings = machine.read('/etc/keyturn/keyturn.yaml');
    machine.run('dpkg -i /srv/next.deb </dev/null');
    const ms = gapMs();
    process.stderr.write(`upgrade: nobody served for ${ms.toFixed(0)} ms\n`);
    expect(ms).toBeGreaterThan(0);
    expect(ms).toBeLessThan(underLoad(5_000));
    expect(machine.run('dpkg --status keyturn')).toMatch(/^Version: 99\.0\.0$/m);
    expect(agent().MainPID).not.toBe(before.agent);
    expect(serial()).toBe(before.serial);
    expect(machine.read('/etc/keyturn/keyturn.yaml')).toBe(settings);
    expect(machine.unit('keyturn-envoy', 'MainPID').MainPID).toBe(before.envoy);
    await until('an Envoy that is back', async () => acknowledged() === before.serial);
  });

  test('comes up from a reboot with its own certificate, without a token, and renews by it', async () => {
    const before = serial();
    await machine.powerOff();
    machine.write('/etc/credstore/keyturn.join-token', '');
    execFileSync('rm', [join(machine.dir, 'etc/credstore/keyturn.join-token')]);
    await machine.boot();
    await until('an active agent', async () => agent().ActiveState === 'active');
    expect(serial()).toBe(before);
    await until(
      'an authority',
      async () => machine.unit('keyturn-ca', 'ActiveState').ActiveState === 'active',
    );
    machine.run('systemctl reload keyturn');
    expect(serial()).not.toBe(before);
    await until('an Envoy that has it', async () => acknowledged() === serial());
  });

  test('that was off until its certificate had expired says so, and what to do; a new token brings it back', async () => {
    machine.write(
      '/etc/keyturn/keyturn.yaml',
      `${machine.read('/etc/keyturn/keyturn.yaml')}ttl: 3s\n`,
    );
    // The last that it gets before it goes, kept in its state directory.
    machine.run('systemctl restart keyturn && systemctl reload keyturn && sleep 0.3');
    const lost = serial();
    await machine.powerOff();
    await new Promise((done) => setTimeout(done, 3_500));
    await machine.boot();
    const text = await until(
      'what hinders it',
      async () => /expired at .*keyturn vm join/.exec(agent().StatusText)?.input,
    );
    expect(agent().ActiveState).toBe('active');
    expect(text).toContain(`${ID}: certificate ${lost} expired at 20`);
    expect(text).toContain('keyturn vm join');
    expect(machine.try(`keyturn status ${CONFIG}`)).toMatchObject({
      code: 75,
      stdout: expect.stringContaining('keyturn vm join'),
    });
    expect(machine.run('journalctl -b -u keyturn --no-pager')).toMatch(
      new RegExp(`certificate expired serial=${lost}`),
    );
    await until(
      'an authority',
      async () => machine.unit('keyturn-ca', 'ActiveState').ActiveState === 'active',
    );
    machine.write(
      '/etc/keyturn/keyturn.yaml',
      machine.read('/etc/keyturn/keyturn.yaml').replace('ttl: 3s\n', ''),
    );
    bundle();
    machine.run('keyturn vm join /srv/vm.join && systemctl restart keyturn');
    await until('a certificate', async () => machine.try(`keyturn status ${CONFIG}`).code === 0);
    await until('an Envoy that has it', async () => acknowledged() === serial());
  });

  test('loses nothing by the removal of the package, and everything by its purge', () => {
    const kept = machine.read('/var/lib/keyturn/state/key.pem');
    machine.run('dpkg --remove keyturn');
    expect(machine.try('systemctl is-active keyturn keyturn-ca keyturn-envoy').stdout).not.toMatch(
      /^active$/m,
    );
    expect(machine.read('/var/lib/keyturn/state/key.pem')).toBe(kept);
    machine.run('dpkg -i /srv/next.deb && systemctl start keyturn-ca keyturn');
    expect(status().ready).toBe(true);
    machine.run('dpkg --purge keyturn');
    for (const path of [
      'var/lib/keyturn',
      'var/lib/keyturn-ca',
      'etc/credstore/keyturn.join-token',
      'etc/keyturn/keyturn.yaml',
    ])
      expect(existsSync(join(machine.dir, path))).toBe(false);
    expect(
      readdirSync(join(machine.dir, 'etc/systemd/system/multi-user.target.wants')).filter((name) =>
        name.startsWith('keyturn'),
      ),
    ).toEqual([]);
    expect(statSync(join(machine.dir, 'etc/keyturn/envoy.yaml')).isFile()).toBe(true);
  });

  if (form === 'standalone') {
    test('takes the executable alone where there is no package, once', () => {
      const install = () =>
        machine.try(`${INSTALL} --executable /opt/keyturn/dist/standalone/keyturn --no-start`);
      const [first, second] = [install(), install()];
      expect(first).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/^installed keyturn \d/),
      });
      expect(second).toMatchObject({
        code: 0,
        stderr: expect.stringMatching(/^this keyturn is installed already\n/),
      });
      expect(machine.run('systemctl cat keyturn keyturn-ca keyturn-envoy')).toContain(
        'ExecStart=/usr/bin/keyturn run',
      );
      expect(machine.run('keyturn ca init --ca-dir /srv/ca --trust-domain example.org')).toContain(
        'example.org',
      );
    });
  }
});
