import { codeOnly, isProgram, type SourceFile } from './source-files';

/** What only one place may call, because everything else is handed it: time, chance, the end of the process, the console. */
const RULES: readonly { readonly call: RegExp; readonly name: string; readonly home: string }[] = [
  { call: /\bDate\.now\b/, name: 'Date.now', home: 'agent/base/' },
  { call: /\bnew Date\(\s*\)/, name: 'new Date()', home: 'agent/base/' },
  { call: /\bsetTimeout\b/, name: 'setTimeout', home: 'agent/base/' },
  { call: /\bsetInterval\b/, name: 'setInterval', home: 'agent/base/' },
  { call: /\bMath\.random\b/, name: 'Math.random', home: 'agent/base/' },
  { call: /\bprocess\.exit\b/, name: 'process.exit', home: 'agent/main.ts' },
];

/** Calls outside their home, each as `path:line: name belongs to home`. */
export function checkForbiddenCalls(files: readonly SourceFile[]): string[] {
  return files.filter(isProgram).flatMap((file) =>
    codeOnly(file.text)
      .split('\n')
      .flatMap((line, index) =>
        RULES.filter((rule) => !file.path.startsWith(rule.home) && rule.call.test(line)).map(
          (rule) => `${file.path}:${index + 1}: ${rule.name} belongs to ${rule.home}`,
        ),
      ),
  );
}
