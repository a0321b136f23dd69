// Prints what ships as a CycloneDX 1.5 bill of materials: the packages as npm tells them from package-lock.json, then what each argument names.
// Usage: sbom.mjs [PURL...]     e.g. pkg:generic/node@22.23.3 pkg:deb/debian/libc6@2.36-9
// Same sources, same bytes: npm's serial number, time and own version are left out.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const { name } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
// Without --omit dev: npm then leaves out whatever a development dependency needs as well.
const asked = ['sbom', '--sbom-format', 'cyclonedx', '--package-lock-only'];
const packages = JSON.parse(
  execFileSync('npm', asked, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'pipe'],
  }),
);
const { component } = packages.metadata;
const shipped = packages.components.filter(
  (each) => !each.properties.some((property) => property.name === 'cdx:npm:package:development'),
);
const refs = new Set([component, ...shipped].map((each) => each['bom-ref']));
const others = process.argv.slice(2).map(componentOf);

const bill = {
  $schema: packages.$schema,
  bomFormat: packages.bomFormat,
  specVersion: packages.specVersion,
  version: 1,
  // npm takes the name of the folder.
  metadata: { component: { ...component, type: 'application', name } },
  components: [...shipped, ...others],
  dependencies: [
    ...packages.dependencies
      .filter(({ ref }) => refs.has(ref))
      .map(({ ref, dependsOn }) => ({
        ref,
        dependsOn: [
          ...dependsOn.filter((each) => refs.has(each)),
          ...(ref === component['bom-ref'] ? others.map((other) => other['bom-ref']) : []),
        ],
      })),
    ...others.map((other) => ({ ref: other['bom-ref'], dependsOn: [] })),
  ],
};
process.stdout.write(`${JSON.stringify(bill, undefined, 2)}\n`);

/** A package URL (https://github.com/package-url/purl-spec) as a component: `pkg:TYPE/[NAMESPACE/]NAME@VERSION[?QUALIFIERS]`. */
function componentOf(purl) {
  const match = /^pkg:([^/]+)\/(?:[^@?]+\/)?([^/@?]+)@([^?]+)(\?.*)?$/.exec(purl);
  if (match === null)
    throw new Error(
      `sbom: "${purl}" is no package URL with a version, e.g. pkg:deb/debian/libc6@2.36-9`,
    );
  const [, type, component, version] = match;
  return {
    'bom-ref': purl,
    type: type === 'deb' ? 'library' : 'platform',
    name: decodeURIComponent(component),
    version: decodeURIComponent(version),
    purl,
  };
}
