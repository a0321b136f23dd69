import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect, test } from '@jest/globals';
import { compile } from '../../../agent/policy/compile';
import { readMesh } from '../../../agent/policy/read-mesh';
import { readPolicies } from '../../../agent/policy/read-policies';
import type { JsonObject } from '../../../agent/policy/resources/resource';
import { canonical, securityOf } from '../../../agent/policy/security-view';
import { ResourceIndex } from '../../../agent/policy/select';

interface Recorded {
  readonly mesh: JsonObject;
  readonly shared: readonly JsonObject[];
  readonly sets: readonly {
    readonly node: { readonly namespace: string; readonly labels: Record<string, string> };
    readonly documents: readonly JsonObject[];
    readonly listeners: readonly JsonObject[];
  }[];
}

const { mesh, shared, sets }: Recorded = JSON.parse(
  gunzipSync(readFileSync(join(__dirname, '../../recorded/istiod-policies.json.gz'))).toString(
    'utf8',
  ),
);

const asFile = (name: string, documents: readonly JsonObject[]) => ({
  name,
  bytes: Buffer.from(documents.map((each) => JSON.stringify(each)).join('\n---\n')),
});

test('a hundred sets of policies become what istiod made of them', () => {
  const read = readMesh({ name: 'mesh.yaml', text: JSON.stringify(mesh) }, undefined);
  expect(read.problems).toEqual([]);
  const { resources, problems } = readPolicies([
    asFile('authz.yaml', shared),
    ...sets.map(({ node, documents }) => asFile(`${node.namespace}.yaml`, documents)),
  ]);
  expect(problems).toEqual([]);
  const index = new ResourceIndex(resources);
  expect(sets.length).toBe(100);
  for (const { node, listeners } of sets) {
    const workload = { namespace: node.namespace, labels: node.labels, address: '192.0.2.1' };
    const compiled = compile(index, workload, read.mesh).listeners.map(securityOf);
    expect([node.namespace, canonical(compiled)]).toEqual([node.namespace, listeners]);
  }
});
