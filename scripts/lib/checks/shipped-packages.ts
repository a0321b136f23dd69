import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What is asked for directly and ships. Each one more is somebody else to trust with keys. */
const MOST_DIRECT = 11;

interface Lock {
  readonly packages: Readonly<
    Record<
      string,
      {
        readonly dependencies?: object;
        readonly dev?: boolean;
        readonly hasInstallScript?: boolean;
        readonly integrity?: string;
      }
    >
  >;
}

/** What is wrong with the packages that ship beside their licences. */
export function checkShippedPackages(root: string): string[] {
  const read = (file: string) => JSON.parse(readFileSync(join(root, file), 'utf8')) as unknown;
  const manifest = read('package.json') as Manifest & {
    readonly allowScripts: Readonly<Record<string, boolean>>;
  };
  return [
    ...unpinned(manifest),
    ...shippedPackageProblems(read('package-lock.json') as Lock, manifest.allowScripts),
  ];
}

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** Dependencies of a package.json that are asked for by anything but one version. */
export function unpinned({
  dependencies,
  devDependencies,
  optionalDependencies,
}: Manifest): string[] {
  return Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies })
    .filter(([, range]) => !/^\d+\.\d+\.\d+(?:-[\w.]+)?$/.test(range))
    .map(([name, range]) => `package.json: ${name} is ${range}, not one version`);
}

/**
 * One line for each that is wrong with production dependencies and theirs, as a package-lock.json has them.
 *
 * @param allowScripts  npm's setting of that name: by package, whether its install script is run. One that is never run does no harm.
 */
export function shippedPackageProblems(
  { packages }: Lock,
  allowScripts: Readonly<Record<string, boolean>>,
): string[] {
  const isRun = (path: string) => allowScripts[path.replace(/^.*node_modules\//, '')] !== false;
  const direct = Object.keys(packages['']?.dependencies ?? {}).length;
  const shipped = Object.entries(packages).filter(([path, entry]) => path !== '' && !entry.dev);
  return [
    ...(direct > MOST_DIRECT
      ? [`package.json: ${direct} dependencies ship, more than ${MOST_DIRECT}`]
      : []),
    ...shipped
      .filter(([path, entry]) => entry.hasInstallScript && isRun(path))
      .map(([path]) => `${path}: runs a script when it is installed`),
    ...shipped
      .filter(([, entry]) => !entry.integrity?.startsWith('sha512-'))
      .map(([path]) => `${path}: no sha512 in package-lock.json`),
  ];
}
