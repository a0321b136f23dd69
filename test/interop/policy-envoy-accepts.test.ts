import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { runKeyturn } from '../support/daemon';
import { peerPath } from '../support/peer-path';
import { describeWith } from '../support/peers';
import { tempDir } from '../support/temp-dir';

const SETS = 10;

/** What istiod was asked with, see test/recorded. */
const { mesh, shared, sets } = JSON.parse(
  gunzipSync(readFileSync(join(__dirname, '../recorded/istiod-policies.json.gz'))).toString(),
);

describeWith('envoy')('what policies compile to', () => {
  test('Envoy takes it, by the words of keyturn policy compile --validate', async () => {
    const dir = tempDir();
    const write = (name: string, documents: readonly object[]) =>
      writeFileSync(join(dir, name), documents.map((each) => JSON.stringify(each)).join('\n---\n'));
    write('mesh.json', [mesh]);
    write('shared.yaml', shared);
    for (const { node, documents } of sets.slice(0, SETS)) {
      write('policies.yaml', documents);
      const { code, stderr, stdout } = await runKeyturn(
        [
          'policy',
          'compile',
          join(dir, 'policies.yaml'),
          join(dir, 'shared.yaml'),
          '--mesh-config',
          join(dir, 'mesh.json'),
          `--namespace=${node.namespace}`,
          '--policy-labels=app=w,v=1',
          '--address=192.0.2.1',
          `--validate=${peerPath('envoy')}`,
        ],
        { dir },
      );
      expect([node.namespace, code, stderr]).toEqual([node.namespace, 0, '']);
      const { extensions } = JSON.parse(stdout);
      expect(extensions.map((each: { name: string }) => each.name)).toContain('keyturn.http.deny');
    }
  });

  test('Envoy refuses what it would not take, and says so in its words', async () => {
    const dir = tempDir();
    const file = join(dir, 'policies.yaml');
    writeFileSync(file, REFUSED);
    const { code, stderr } = await runKeyturn(
      ['policy', 'compile', file, '--namespace=shop', `--validate=${peerPath('envoy')}`],
      { dir },
    );
    expect(code).toBe(65);
    expect(stderr).toMatch(/Envoy refuses it: .*(Jwks|JWKS|jwks)/s);
  });
});

/** istiod takes a point that is on no curve, and Envoy refuses its listener. */
const REFUSED = `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: a, jwks: '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}'}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: all, namespace: shop}
spec: {ingress: [{port: {number: 8080, protocol: HTTP, name: http}, captureMode: NONE}]}
`;
