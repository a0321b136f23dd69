import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { describeWith, testWhere, testWith } from '../support/peers';
import { recipeOf } from '../support/recipe';
import { until } from '../support/until';

const ROOT = join(__dirname, '../..');
/** Below .cache, so that packages can be linked rather than copied; with a space, as people have them. */
const CLONE = join(ROOT, '.cache/a fresh clone');

beforeAll(() => {
  rmSync(CLONE, { recursive: true, force: true });
  const sources = execFileSync(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    {
      cwd: ROOT,
      encoding: 'utf8',
    },
  ).split('\0');
  for (const file of sources.filter((each) => each !== '' && existsSync(join(ROOT, each)))) {
    mkdirSync(dirname(join(CLONE, file)), { recursive: true });
    cpSync(join(ROOT, file), join(CLONE, file), { preserveTimestamps: true });
  }
  execFileSync('cp', ['-al', join(ROOT, 'node_modules'), CLONE]);
});

afterAll(() => rmSync(CLONE, { recursive: true, force: true }));

interface Shown {
  readonly child: ChildProcess;
  text(): string;
  readonly ended: Promise<number | null>;
}

/** Runs scripts/start of the clone from somewhere else. */
function start(...args: readonly string[]): Shown {
  // What says which form of the program is under test is no setting of an agent.
  const { KEYTURN_FORM, ...env } = process.env;
  const child = spawn(join(CLONE, 'scripts/start'), args, {
    cwd: '/',
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
  }
  return {
    child,
    text: () => text,
    ended: new Promise((done) => child.on('close', (code) => done(code))),
  };
}

describe('scripts/start in a fresh clone', () => {
  test('shows the certificate, tells of rotations, keeps everything below ./var and ends cleanly', async () => {
    const shown = start(
      '--ttl',
      '4s',
      '--service-account',
      'cart',
      '--admin-address',
      '127.0.0.1:0',
    );
    await until(
      'two rotations',
      async () => (shown.text().match(/ renewed: serial /g)?.length ?? 0) >= 2,
      40_000,
    ).catch((caught) => {
      throw new Error(`${(caught as Error).message}; it said:\n${shown.text()}`);
    });
    const text = shown.text();
    expect(text).toContain('keeps spiffe://cluster.local/ns/default/sa/cart');
    for (const fact of [
      /serial {7}[0-9a-f]{20,}/,
      /valid until {2}2\d{3}-/,
      /renews at {4}2\d{3}-/,
    ])
      expect(text).toMatch(fact);
    expect(text).toContain('SDS socket   var/run/secrets/workload-spiffe-uds/socket');
    expect(existsSync(join(CLONE, 'var/lib/keyturn/ca/ca-key.pem'))).toBe(true);

    const second = start();
    expect(await second.ended).toBe(1);
    expect(second.text()).toContain('keyturn is running here already');

    shown.child.kill('SIGINT');
    expect(await shown.ended).toBe(0);
    expect(existsSync(join(CLONE, 'var/run/secrets/workload-spiffe-uds/socket'))).toBe(false);
    expect(readFileSync(join(CLONE, 'var/log/keyturn.log'), 'utf8')).toContain('agent stopped');
  });

  test('says what is wrong with a setting, in the words of the agent', async () => {
    const shown = start('--ttl', 'soon');
    expect(await shown.ended).toBe(78);
    expect(shown.text()).toContain('flag --ttl: "soon" is not a duration');
  });

  testWith('envoy')(
    '--demo turns keys under two real Envoys without a failed request',
    async () => {
      const shown = start('--demo', '--for', '14s');
      const code = await shown.ended;
      expect({ code, text: shown.text() }).toEqual({
        code: 0,
        text: expect.stringContaining('no request failed'),
      });
      expect(shown.text()).toMatch(/1\ds: 2 rotations, [5-9]\d\d requests, 0 failures/);
    },
  );
});

/** A network and processes of its own: the walk has fixed ports, and what it leaves in the background ends with it. */
const ALONE =
  'unshare --map-root-user --net --pid --fork --kill-child --mount-proc bash -euc'.split(' ');
const LOOPBACK_UP = `python3 -c 'import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh22x", b"lo", 1))'`;
const isAlone = spawnSync(ALONE[0]!, [...ALONE.slice(1), 'true']).status === 0;

describeWith('envoy')("the README's walk, followed word by word in a fresh clone", () => {
  let child: ChildProcess | undefined;
  afterAll(() => void child?.kill('SIGKILL'));

  testWhere(
    isAlone,
    'a network namespace of our own',
    'user namespaces, or root',
  )('leads to mutual TLS through an Envoy, before and after a change of the key', async () => {
    const [startLine] = recipeOf('README.md', 'Two commands').split('\n');
    const walk = [
      LOOPBACK_UP,
      `{ ${startLine}\n} &`,
      'until dist/keyturn status >&2; do sleep 0.2; done',
      recipeOf('README.md', 'First mutual TLS request'),
    ].join('\n');
    const { KEYTURN_FORM, ...env } = process.env;
    const path = `${join(ROOT, 'node_modules/.bin')}:${env.PATH}`;
    child = spawn(ALONE[0]!, [...ALONE.slice(1), walk], {
      cwd: CLONE,
      env: { ...env, PATH: path },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [text, noise] = ['', ''];
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
      noise += chunk;
    });
    const code = await new Promise((done) => child!.on('close', done));
    expect({ code, noise }).toEqual({ code: 0, noise: expect.any(String) });
    const id = 'spiffe://cluster.local/ns/default/sa/default';
    const answers = [...text.matchAll(/^By=(\S+);Hash=([0-9a-f]{64});URI=(\S+)$/gm)];
    expect(answers.map(([, by, , uri]) => [by, uri])).toEqual([
      [id, id],
      [id, id],
    ]);
    expect(answers[1]![2]).not.toBe(answers[0]![2]);
    expect(text).toMatch(/^ {2}SDS streams {2}2$/m);
  });
});
