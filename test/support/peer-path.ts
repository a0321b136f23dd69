import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';

export type PeerName =
  | 'envoy'
  | 'pkilint'
  | 'goverify'
  | 'gospiffe'
  | 'javaspiffe'
  | 'pyspiffe'
  | 'rustspiffe'
  | 'caload'
  | 'kube'
  | 'certmanager'
  | 'kustomize'
  | 'servicemonitor'
  | 'istiod'
  | 'pilot-agent'
  | 'istio-files'
  | 'istio-authz'
  | 'istio-api'
  | 'wycheproof'
  | 'shells'
  | 'systemd-tools'
  | 'systemd'
  | 'image'
  | 'cyclonedx';

/** Where `scripts/peers` has put a program that tests speak to, or undefined where nobody has provided it yet. */
export function peerPath(name: PeerName): string | undefined {
  const asked = spawnSync(resolve(__dirname, '../../scripts/peers'), ['--present', name], {
    encoding: 'utf8',
  });
  return asked.status === 0 ? asked.stdout.trim() : undefined;
}
