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

describe('until the first secret', () => {
  const { inputs } = buildSync({
    entryPoints: UNTIL_FIRST_SECRET.map((file) => join(ROOT, file)),
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
  for (const file of UNTIL_FIRST_SECRET) reach(file);

  test('the server that hands it out is loaded', () => {
    expect([...loaded]).toContain('sds/server.ts');
  });

  test.each([
    ['prom-client', 'node_modules/prom-client/'],
    ['chokidar', 'node_modules/chokidar/'],
    ['yaml', 'node_modules/yaml/'],
    ['grpc-js', 'node_modules/@grpc/grpc-js/'],
    ['@peculiar/x509', 'node_modules/@peculiar/'],
    ['reflect-metadata', 'node_modules/reflect-metadata/'],
    ['node:http', 'node:http'],
    ['node:http2', 'node:http2'],
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
    expect([...loaded].filter((file) => file === part || file.startsWith(part))).toEqual([]);
  });
});
