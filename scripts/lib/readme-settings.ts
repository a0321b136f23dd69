import { readFileSync, writeFileSync } from 'node:fs';
import { settingsMarkdown } from '../../agent/config/settings-markdown';

const [START, END] = ['<!-- settings -->', '<!-- /settings -->'];

// Puts the table of settings, as the code knows them, between the markers of README.md. With --check it changes nothing and fails where
// another table stands there.
const page = readFileSync('README.md', 'utf8');
const [start, end] = [page.indexOf(START), page.indexOf(END)];
if (start === -1 || end < start) fail(`README.md lacks the markers ${START} and ${END}`);
const wanted = `${page.slice(0, start)}${START}\n\n${settingsMarkdown().trim()}\n\n${page.slice(end)}`;
if (process.argv[2] !== '--check') writeFileSync('README.md', wanted);
else if (wanted !== page)
  fail(
    "README.md's table of settings is not what the code says; run scripts/generate and commit the result",
  );

function fail(text: string): never {
  process.stderr.write(`${text}\n`);
  process.exit(1);
}
