import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { parseAllDocuments } from 'yaml';
import type { KubeObject } from './kube';
import { peerPath } from './peer-path';

const DEPLOY = resolve(__dirname, '../../scripts/deploy');

/** Every folder of `scripts/deploy` that can be applied, e.g. `overlays/own-ca`; components only go with others. */
export function deployable(): string[] {
  return readdirSync(DEPLOY, { recursive: true, withFileTypes: true })
    .filter(
      ({ name, parentPath }) => name === 'kustomization.yaml' && !parentPath.includes('components'),
    )
    .map(({ parentPath }) => relative(DEPLOY, parentPath))
    .sort();
}

/** What `kubectl apply -k` would send of a folder of `scripts/deploy`, or of another by its absolute path. YAML. */
export function kustomize(folder: string): string {
  const { status, stdout, stderr } = spawnSync(
    peerPath('kustomize')!,
    ['build', resolve(DEPLOY, folder)],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`kustomize build ${folder}: ${stderr}`);
  return stdout;
}

/** A file of `scripts/deploy` that is no kustomization's own. */
export const deployPath = (file: string): string => join(DEPLOY, file);

/** The objects of a YAML text. */
export function objectsIn(yaml: string): KubeObject[] {
  return parseAllDocuments(yaml).map((document) => document.toJS());
}
