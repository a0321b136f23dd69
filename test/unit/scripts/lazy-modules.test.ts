import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { buildSync } from 'esbuild';

const ROOT = join(__dirname, '../../..');

/** What the start of `keyturn run` needs until the first secret is out: these and all that they import, `import()` left aside. */
const UNTIL_FIRST_SECRET = [
  'agent/main.ts',
  'agent/cli/start.ts',
  'agent/cli/run.ts',
  'agent/identity/direct-engine.ts',
];

/** The same of `keyturn run --ca istiod`. */
const UNTIL_ASKED = [...UNTIL_FIRST_SECRET, 'ca-client/istio/istio-ca.ts'];

/** Files and modules that these and what they import are made of, `import()` left aside. */
function loadedBy(files: readonly string[]): Set<string> {
  const { inputs } = buildSync({
    entryPoints: files.map((file) => join(ROOT, file)),
    absWorkingDir: ROOT,
    outdir: join(ROOT, 'dist'),
    bundle: true,
    platform: 'node',
    write: false,
    metafile: true,
    logLevel: 'silent',
  }).metafile;

  const loaded = new Set<string>();
  const reach = (file: string) => {
    if (loaded.has(file)) return;
    loaded.add(file);
    for (const each of inputs[file]?.imports ?? [])
      if (each.kind !== 'dynamic-import') reach(each.path);
  };
  for (const file of files) reach(file);
  return loaded;
}

describe('until the first secret', () => {
  const loaded = loadedBy(UNTIL_FIRST_SECRET);

  test('the server that hands it out is loaded', () => {
    expect([...loaded]).toContain('sds/server.ts');
  });

  test.each([
    ['prom-client', 'node_modules/prom-client/'],
    ['chokidar', 'node_modules/chokidar/'],
    ['commander', 'node_modules/commander/'],
    ['yaml', 'node_modules/yaml/'],
    ['grpc-js', 'node_modules/@grpc/grpc-js/'],
    ['@peculiar/x509', 'node_modules/@peculiar/'],
    ['reflect-metadata', 'node_modules/reflect-metadata/'],
    ['node:http', 'node:http'],
    ['node:http2', 'node:http2'],
    ['node:zlib', 'node:zlib'],
    ['node:v8', 'node:v8'],
    ['node:vm', 'node:vm'],
    ['node:worker_threads', 'node:worker_threads'],
    ['node:util, which brings inspect', 'node:util'],
    ['the control server', 'agent/admin/control-server.ts'],
    ['health and metrics over HTTP', 'agent/admin/http-server.ts'],
    ['the Workload API', 'sds/workload-api/workload-api.ts'],
    ['its messages', 'sds/proto/generated/workload.ts'],
    ['health and reflection', 'sds/standard/standard-services.ts'],
    ['what it describes', 'sds/proto/generated/descriptors.ts'],
    ['JWT-SVIDs', 'agent/authority/jwt/'],
    ['jose', 'node_modules/jose/'],
    ['other trust domains', 'agent/trust/federation.ts'],
  ])('%s is not loaded', (_, part) => {
    const is = (file: string) => file === part || (part.includes('/') && file.startsWith(part));
    expect([...loaded].filter(is)).toEqual([]);
  });
});

describe('until a CA is asked', () => {
  const loaded = loadedBy(UNTIL_ASKED);

  test('of grpc-js its call is loaded, and what that is made of', () => {
    const inner = [...loaded].filter((file) => file.includes('@grpc/grpc-js/'));
    expect(inner.map((file) => file.split('/').at(-1)).sort()).toEqual([
      'constants.js',
      'error.js',
      'logging.js',
      'metadata.js',
      'package.json',
      'stream-decoder.js',
      'subchannel-call.js',
    ]);
  });

  test.each(['node:dns', 'node:http', 'node:zlib', 'dns', 'http', 'zlib'])(
    '%s is not loaded',
    (module) => expect([...loaded]).not.toContain(module),
  );
});
