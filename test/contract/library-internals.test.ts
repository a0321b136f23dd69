import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { constants } from 'node:http2';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import * as promClient from 'prom-client';
import { loadPromClient } from '../../agent/admin/prom-client';
import type { ClientConnection } from '../../agent/http2/client-connection';
import { CallStream } from '../../ca-client/grpc/call-stream';

// What we use of libraries beyond their front doors, each behind one file. Where one of these fails after an upgrade, that file is to be
// made to fit what the library has become.

const ROOT = join(__dirname, '../..');

/** The program's own files that name something inside a package. */
function namersOf(inner: RegExp): string[] {
  const files = globSync('{agent,sds,ca-client}/**/*.ts', { cwd: ROOT });
  return files.filter((file) => inner.test(readFileSync(join(ROOT, file), 'utf8'))).sort();
}

/** A file of a package as the build puts it into the program. */
function partedBy(path: string): string {
  const leftOut = pathToFileURL(join(ROOT, 'scripts/lib/left-out.mjs')).href;
  const program = `
    import { readFileSync } from 'node:fs';
    import { parted } from ${JSON.stringify(leftOut)};
    const path = ${JSON.stringify(path)};
    process.stdout.write(parted(path, readFileSync(path, 'utf8')));`;
  return execFileSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  });
}

describe('grpc-js, whose call runs on our HTTP/2', () => {
  const path = require.resolve('@grpc/grpc-js/build/src/subchannel-call');
  const source = readFileSync(path, 'utf8');
  const uses = (pattern: RegExp) =>
    [...new Set([...source.matchAll(pattern)].map(([, name]) => name!))].sort();

  test('has its inner files named by one file of ours', () => {
    expect(namersOf(/['"]@grpc\/grpc-js\//)).toEqual(['ca-client/grpc/grpc-js.ts']);
  });

  test('takes of a stream what ours has', () => {
    const stream = new CallStream({} as ClientConnection, [], () => undefined);
    const missing = uses(/http2Stream\.(\w+)/g).filter((name) => !(name in stream));
    expect(missing).toEqual([]);
    expect(uses(/http2Stream\.on\('(\w+)'/g)).toEqual(
      ['close', 'data', 'end', 'error', 'response', 'trailers'].sort(),
    );
  });

  test('asks of its transport, its tracker and its listener what they answer', () => {
    expect(uses(/transport\.(\w+)/g)).toEqual(['getAuthContext', 'getOptions', 'getPeerName']);
    expect(uses(/callEventTracker\.(\w+)/g)).toEqual(
      ['addMessageReceived', 'addMessageSent', 'onCallEnd', 'onStreamEnd'].sort(),
    );
    expect(uses(/this\.listener\.(\w+)/g)).toEqual(
      ['onReceiveMessage', 'onReceiveMetadata', 'onReceiveStatus'].sort(),
    );
  });

  test('wants nothing of node:http2 but the constants that the build puts in its place', () => {
    const built = partedBy(path);
    expect(built).not.toMatch(/require\(["'](?:node:)?(?:http2|os)["']\)/);
    const [, given] = /const http2 = \((\{.*\})\);/.exec(built)!;
    const names = uses(/http2\.constants\.(\w+)/g);
    const known = Object.fromEntries(
      names.map((name) => [name, constants[name as keyof typeof constants]]),
    );
    expect(JSON.parse(given!)).toEqual({ constants: known });
    expect(uses(/\bhttp2\.(\w+)/g)).toEqual(['constants']);
  });

  test('wants of node:os what its traces name errors by', () => {
    expect(uses(/\bos\.([\w.]+)/g)).toEqual(['constants.errno']);
  });
});

describe('commander, whose commands are ours', () => {
  test('starts programs only for commands that are programs of their own', () => {
    const path = join(ROOT, 'node_modules/commander/lib/command.js');
    const source = readFileSync(path, 'utf8');
    const begin = source.indexOf('  _executeSubCommand(');
    const own = source.slice(begin, source.indexOf('\n  }\n', begin));
    const all = source.match(/childProcess\./g)!.length;
    expect(own.match(/childProcess\./g)).toHaveLength(all);
    expect(partedBy(path)).not.toContain('child_process');
    // With a description beside its name a command is such a program.
    expect(namersOf(/\.command\(\s*['"`][^'"`]+['"`],\s*['"`]/)).toEqual([]);
  });
});

describe('prom-client, of which four classes are loaded', () => {
  test('has its inner files named by one file of ours, and by what gives them types', () => {
    expect(namersOf(/['"]prom-client\/lib/)).toEqual([
      'agent/admin/prom-client-files.d.ts',
      'agent/admin/prom-client.ts',
    ]);
  });

  test('has in those files the classes of its front door', async () => {
    const { Registry, Counter, Gauge, Histogram } = promClient;
    expect(await loadPromClient()).toEqual({ Registry, Counter, Gauge, Histogram });
  });
});

test('no other package has its inner files named', () => {
  const inner = /from ['"]((?:@[\w-]+\/)?[\w-]+)\/[^'"]+['"]/g;
  const named = globSync('{agent,sds,ca-client}/**/*.ts', { cwd: ROOT }).flatMap((file) =>
    [...readFileSync(join(ROOT, file), 'utf8').matchAll(inner)].map(
      ([, name]) => `${name} in ${relative(ROOT, join(ROOT, file))}`,
    ),
  );
  const allowed = /^(@bufbuild\/protobuf|@grpc\/grpc-js in ca-client\/grpc\/grpc-js\.ts)/;
  expect(named.filter((each) => !allowed.test(each) && !each.startsWith('node:'))).toEqual([]);
});
