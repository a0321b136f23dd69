import { dirname } from 'node:path';
import { circlesOf } from './circles';
import { type Import, importsOf, unreadableImports } from './imports';
import { isGenerated, isProgram, type SourceFile } from './source-files';

/**
 * The drawing of agent/ARCHITECTURE.md. Its fenced block `arrows` has one line for each unit, a folder or a single file:
 *
 *     agent/lifecycle -> agent/base agent/identity ca-client(types)
 *
 * A folder owns the files directly in it: each of its sub-folders is a unit of its own. What a generator wrote belongs to the folder above
 * its folder `generated`. `(types)` allows `import type` only. Its fenced block `packages` says who may import which package:
 *
 *     yaml agent/config
 */
export interface Drawing {
  readonly units: ReadonlyMap<string, ReadonlyMap<string, 'all' | 'types'>>;
  readonly packages: ReadonlyMap<string, readonly string[]>;
}

/** Reads the two blocks. A page without them has no arrows, so everything differs from it. */
export function readDrawing(markdown: string): Drawing {
  const units = new Map<string, Map<string, 'all' | 'types'>>();
  for (const line of fenced(markdown, 'arrows')) {
    const [unit, targets] = line.split('->').map((part) => part.trim());
    const arrows = words(targets ?? '').map((word) => {
      const name = word.replace(/\(types\)$/, '');
      return [name, name === word ? 'all' : 'types'] as const;
    });
    units.set(unit!, new Map(arrows));
  }
  const packages = new Map<string, readonly string[]>();
  for (const line of fenced(markdown, 'packages')) {
    const [name, ...places] = words(line);
    packages.set(name!, places);
  }
  return { units, packages };
}

/** Where the import graph and the drawing differ, in both directions, as sentences. */
export function checkArrows(files: readonly SourceFile[], drawing: Drawing): string[] {
  const problems = files
    .filter(isOtherScript)
    .map((file) => `${file.path} is a program file that does not end in .ts`);
  const used = new Set<string>();
  for (const file of files.filter(isProgram)) {
    const unit = unitOf(file.path, drawing);
    if (unit === undefined) {
      problems.push(`${file.path} belongs to no unit of the drawing`);
      continue;
    }
    problems.push(...unreadableImports(file));
    for (const each of importsOf(file)) {
      const problem =
        each.kind === 'ours'
          ? checkOurs(each, unit, drawing, used)
          : checkPackage(each, drawing, used);
      if (problem !== undefined) problems.push(problem);
    }
  }
  for (const file of files.filter(isGenerated))
    for (const each of importsOf(file)) checkPackage(each, drawing, used);
  return [...problems, ...unusedArrows(drawing, used), ...circles(files, drawing)];
}

// What the checks of the program would pass over.
function isOtherScript({ path }: SourceFile): boolean {
  return /^(agent|sds|ca-client)\/.*\.([mc][jt]s|[jt]sx|js)$/.test(path);
}

function checkOurs(
  each: Import,
  unit: string,
  drawing: Drawing,
  used: Set<string>,
): string | undefined {
  const target = unitOf(each.to, drawing);
  if (target === undefined)
    return `${each.from} imports ${each.to}, which belongs to no unit of the drawing`;
  if (target === unit) return undefined;
  const allowed = drawing.units.get(unit)!.get(target);
  used.add(`${unit} -> ${target}`);
  if (allowed === undefined)
    return `${each.from} imports ${each.to}: the drawing has no arrow ${unit} -> ${target}`;
  if (allowed === 'types' && !each.typesOnly)
    return `${each.from} imports ${each.to}: the arrow ${unit} -> ${target} is for types only`;
  return undefined;
}

function checkPackage(each: Import, drawing: Drawing, used: Set<string>): string | undefined {
  if (each.kind === 'builtin') return undefined;
  const places = drawing.packages.get(each.to);
  if (places === undefined)
    return `${each.from} imports the package ${each.to}, which the drawing does not name`;
  const place = places.find((name) => isWithin(each.from, name));
  if (place === undefined)
    return `${each.from} imports the package ${each.to}, which belongs to ${places.join(' ')}`;
  used.add(`${each.to} ${place}`);
  return undefined;
}

/** Circles between files and between units, imports of types included: nobody can read one part of a circle without the others. */
function circles(files: readonly SourceFile[], drawing: Drawing): string[] {
  const ofFiles = new Map(
    files
      .filter(isProgram)
      .map((file) => [
        file.path.replace(/(\.d)?\.ts$/, ''),
        importsOf(file).flatMap(({ kind, to }) => (kind === 'ours' ? [to] : [])),
      ]),
  );
  const ofUnits = new Map([...drawing.units].map(([unit, targets]) => [unit, [...targets.keys()]]));
  return [
    ...circlesOf(ofFiles).map((circle) => `files in a circle: ${circle.join(' -> ')}`),
    ...circlesOf(ofUnits).map((circle) => `the drawing has a circle: ${circle.join(' -> ')}`),
  ];
}

function unusedArrows(drawing: Drawing, used: ReadonlySet<string>): string[] {
  const drawn = [...drawing.units].flatMap(([unit, targets]) =>
    [...targets.keys()].map((target) => `${unit} -> ${target}`),
  );
  const placed = [...drawing.packages].flatMap(([name, places]) =>
    places.map((place) => `${name} ${place}`),
  );
  return [...drawn, ...placed]
    .filter((arrow) => !used.has(arrow))
    .map((arrow) => `the drawing has ${arrow}, which no import uses`);
}

/** The file itself, where it is drawn, or the folder it lies in; undefined where neither is drawn. */
function unitOf(path: string, drawing: Drawing): string | undefined {
  const file = path.endsWith('.ts') ? path : `${path}.ts`;
  const folder = dirname(file.replace(/\/generated\/.*/, '/generated'));
  return [file, folder].find((name) => drawing.units.has(name));
}

// Imports of ours carry no extension, so `agent/main.ts` owns `agent/main` too.
function isWithin(path: string, place: string): boolean {
  return path === place || `${path}.ts` === place || path.startsWith(`${place}/`);
}

function fenced(markdown: string, language: string): string[] {
  const block =
    new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'm').exec(markdown)?.[1] ?? '';
  return block.split('\n').filter((line) => line.trim() !== '');
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
