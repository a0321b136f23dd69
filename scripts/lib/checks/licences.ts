import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Licences that let the bundle be shipped under Apache-2.0 with no more than their text beside it. */
const ALLOWED = new Set([
  '0BSD',
  'Apache-2.0',
  'BlueOak-1.0.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'ISC',
  'MIT',
  'PSF-2.0',
  'Unlicense',
]);

/** Packages that ship with us (production dependencies and theirs) under a licence that is not allowed, or under none. */
export function checkLicences(root: string): string[] {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<
      string,
      { version?: string; dev?: boolean; optional?: boolean; license?: string }
    >;
  };
  return Object.entries(packages)
    .filter(([path, entry]) => path !== '' && !entry.dev)
    .flatMap(([path, entry]) => {
      // An optional one may be for another machine, and not be here to read.
      const license = entry.optional
        ? entry.license
        : readLicence(join(root, path, 'package.json'));
      return typeof license === 'string' && isAllowed(license)
        ? []
        : [
            `${path} ${entry.version}: licence ${JSON.stringify(license)} is not one of ${[...ALLOWED].join(', ')}`,
          ];
    });
}

function readLicence(path: string): unknown {
  return (JSON.parse(readFileSync(path, 'utf8')) as { license?: unknown }).license;
}

/** An SPDX expression without nesting: `A OR B` leaves us the choice, `A AND B` binds us to both. */
function isAllowed(expression: string): boolean {
  return expression
    .replace(/^\((.*)\)$/, '$1')
    .split(' OR ')
    .some((choice) => choice.split(' AND ').every((name) => ALLOWED.has(name)));
}
