import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import { addCommands } from '../../agent/cli/commands';
import { completionModel } from '../../agent/cli/completion-model';
import { createProgram } from '../../agent/cli/program';
import { SETTING_NAMES } from '../../agent/config/options';
import { keyturn } from '../support/command-line';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

const scripts: Record<string, string> = {};

beforeAll(async () => {
  for (const shell of ['bash', 'zsh', 'fish'])
    scripts[shell] = (await keyturn(['completion', shell], { cwd: '/' })).stdout;
});

function bashEnvironment() {
  return { PATH: process.env.PATH, SCRIPT: scripts.bash };
}

/** What bash offers for a line whose last word is being typed. */
function bashOffers(line: string, cwd = '/'): string[] {
  // As readline does: words at spaces, and `=` a word of its own.
  const words = line.split(/ |(=)/).filter((word) => word !== undefined && word !== '');
  if (line.endsWith(' ')) words.push('');
  const program = join(__dirname, 'complete.bash');
  const offered = execFileSync('bash', ['--norc', program, ...words], {
    cwd,
    env: bashEnvironment(),
    encoding: 'utf8',
  });
  return offered.split('\n').filter((word) => word !== '');
}

describe('in a real bash', () => {
  test('the script has no mistakes and registers itself', () => {
    const program = 'set -e; eval "$SCRIPT"; complete -p keyturn';
    const registered = execFileSync('bash', ['--norc', '-c', program], {
      env: bashEnvironment(),
      encoding: 'utf8',
    });
    expect(registered).toBe('complete -F _keyturn keyturn\n');
  });

  test.each<[string, readonly string[]]>([
    ['keyturn st', ['status']],
    ['keyturn secret ', ['get', 'watch']],
    ['keyturn secret get ', ['default', 'ROOTCA']],
    ['keyturn run --ca ', ['istiod', 'istio-csr', 'kubernetes-csr', 'builtin', 'file']],
    ['keyturn run --ca=b', ['builtin']],
    ['keyturn run --ca=', ['istiod', 'istio-csr', 'kubernetes-csr', 'builtin', 'file']],
    ['keyturn run --ttl 1h --key-algorithm rsa', ['rsa-2048', 'rsa-3072', 'rsa-4096']],
    ['keyturn run --ttl ', []],
    ['keyturn run --namespace secret --log-f', ['--log-format']],
    ['keyturn run --renew-', ['--renew-ratio', '--renew-jitter']],
    ['keyturn rotate --w', ['--workload', '--wait']],
    ['keyturn rotate --wait --output ', ['text', 'json']],
    ['keyturn status -o j', ['json']],
    ['keyturn completion ', ['bash', 'zsh', 'fish']],
    ['keyturn nonsense --out', []],
  ])('%s<TAB>', (line, want) => expect(bashOffers(line)).toEqual(want));

  test('paths are offered where a file or a directory is expected', () => {
    const cwd = tempDir();
    mkdirSync(join(cwd, 'certs'));
    writeFileSync(join(cwd, 'chain file.pem'), '');
    expect(bashOffers('keyturn cert show c', cwd).sort()).toEqual(['certs', 'chain file.pem']);
    expect(bashOffers('keyturn run --ca-dir c', cwd)).toEqual(['certs']);
    expect(bashOffers('keyturn csr create --key-out c', cwd).sort()).toEqual([
      'certs',
      'chain file.pem',
    ]);
  });

  test('every command of the top is offered, and none that is hidden', async () => {
    const help = (await keyturn(['--help'], { cwd: '/' })).stdout;
    const listed = [...help.split('\nExamples:')[0]!.matchAll(/^ {2}([a-z]+)\b/gm)].map(
      ([, name]) => name,
    );
    expect(listed).toContain('run');
    expect(bashOffers('keyturn ').sort()).toEqual(listed.sort());
    expect(bashOffers('keyturn config ')).toEqual(['show']);
  });
});

describeWith('shells')('in a real fish', () => {
  const fishOffers = (line: string) => {
    const program = 'eval $SCRIPT; complete --do-complete $argv[1]';
    const env = { PATH: process.env.PATH, HOME: tempDir(), SCRIPT: scripts.fish };
    const offered = execFileSync('fish', ['--no-config', '-c', program, line], {
      cwd: '/',
      env,
      encoding: 'utf8',
    });
    return offered.split('\n').flatMap((each) => (each === '' ? [] : [each.split('\t')[0]]));
  };

  test.each<[string, readonly string[]]>([
    ['keyturn stat', ['status']],
    ['keyturn secret ', ['get', 'watch']],
    ['keyturn run --ca ', ['builtin', 'file', 'istio-csr', 'istiod', 'kubernetes-csr']],
    ['keyturn run --renew-', ['--renew-jitter', '--renew-ratio']],
  ])('%s<TAB>', (line, want) => expect(fishOffers(line).sort()).toEqual(want));
});

describeWith('shells')('in a real zsh', () => {
  /** What the script hands to `_describe`, which shows it. */
  const zshOffers = (line: string) => {
    const program = `autoload -U compinit; compinit -D -d "$HOME/dump"; eval "$SCRIPT"
      print -r -- "$_comps[keyturn]"
      _describe() { local name=$argv[-1]; print -rl -- "\${(@P)name}" }
      compadd() { print -rl -- "\${argv[@]}" }
      words=("$@"); CURRENT=$#; _keyturn`;
    const words = line.split(' ');
    const env = { PATH: process.env.PATH, HOME: tempDir(), SCRIPT: scripts.zsh };
    const [registered, ...offered] = execFileSync('zsh', ['-f', '-c', program, 'zsh', ...words], {
      cwd: '/',
      env,
      encoding: 'utf8',
    })
      .trimEnd()
      .split('\n');
    expect(registered).toBe('_keyturn');
    return offered.map((each) => each.split(':')[0]);
  };

  test.each<[string, readonly string[]]>([
    ['keyturn secret ', ['get', 'watch']],
    ['keyturn run --ca ', ['istiod', 'istio-csr', 'kubernetes-csr', 'builtin', 'file']],
    ['keyturn config -', ['--help']],
  ])('%s<TAB>', (line, want) => expect(zshOffers(line)).toEqual(expect.arrayContaining([...want])));
});

const context = { terminal: { columns: 100 } as never, done: () => undefined };
const program = addCommands(createProgram(context), context);

test.each(['bash', 'zsh', 'fish'])(
  'the script for %s knows every command and every setting',
  (shell) => {
    for (const { path } of completionModel(program))
      expect(scripts[shell]).toContain(`'${path.replace("'", '')}'`.slice(1, -1));
    for (const name of SETTING_NAMES)
      expect(scripts[shell]).toMatch(new RegExp(`(--| -l )${name}\\b`));
  },
);

test('no flag takes a value in one command and none in another: the scripts rely on it', () => {
  const flags = completionModel(program).flatMap((command) => command.flags);
  for (const flag of flags) {
    for (const other of flags.filter(
      (each) => each.long === flag.long || (each.short && each.short === flag.short),
    )) {
      expect([flag.long, flag.value !== undefined]).toEqual([
        other.long,
        other.value !== undefined,
      ]);
    }
  }
});
