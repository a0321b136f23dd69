import { execFileSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { peerPath } from './peer-path';

/** Envoy itself, out of PyPI's package: the program of that name beside it needs Python. */
export function envoyBinary(): string {
  const environment = dirname(dirname(peerPath('envoy')!));
  return execFileSync('find', [join(environment, 'lib'), '-path', '*/envoy/_bin/envoy'], {
    encoding: 'utf8',
  }).trim();
}
