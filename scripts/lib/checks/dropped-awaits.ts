import { codeOnly, isProgram, type SourceFile } from './source-files';

/** Methods that only a FileHandle of node:fs/promises has. */
const HANDLE_METHODS = 'sync|datasync|truncate|writeFile|appendFile';

/**
 * Promises that a statement drops and that biome's noFloatingPromises does not see: what node:fs/promises answers, whose overloads it does
 * not follow, and what ends in `.catch(...)`, which rejects no more but may still have to be waited for. `void` says that it need not be.
 */
export function checkDroppedAwaits(files: readonly SourceFile[]): string[] {
  return files.filter(isProgram).flatMap((file) => {
    const dropped = new RegExp(`^(?:${droppedBy(file.text).join('|')})`);
    let begins = true;
    return codeOnly(file.text)
      .split('\n')
      .flatMap((line, index) => {
        const statement = line
          .trim()
          .replace(/^(?:\} )?(?:else |(?:if|for|while) \(.*?\) (?=[\w#]))+/, '');
        const found = begins && dropped.test(statement);
        if (statement !== '') begins = /[;{}]$/.test(statement);
        return found ? [`${file.path}:${index + 1}: drops a promise: await it, or say void`] : [];
      });
  });
}

function droppedBy(text: string): string[] {
  const imported = [...text.matchAll(/^import \{([^}]*)\} from 'node:fs\/promises'/gm)].flatMap(
    ([, names]) =>
      names!
        .split(',')
        .map((name) => name.trim().split(' as ').at(-1)!)
        .filter((name) => /^\w+$/.test(name)),
  );
  const handles = [...text.matchAll(/\b(?:const|let) (\w+) = await open\(/g)]
    .map(([, name]) => name!)
    .filter((name) => !new RegExp(`\\b(?:const|let) ${name}:`).test(text))
    .map((name) => `${name}\\.close`);
  const calls = [...new Set([...imported, ...handles, `[\\w.#?!]+\\.(?:${HANDLE_METHODS})`])].map(
    (name) => `${name}\\(`,
  );
  return [...calls, '(?!void |return |yield |throw |[})]|.*\\bawait )[^=]*\\.catch\\(.*\\);$'];
}
