import { readFileSync, writeFileSync } from 'node:fs';
import { settingsMarkdown } from '../../agent/config/settings-markdown';

const PAGE = 'docs/settings.md';
const [START, END] = ['<!-- settings -->', '<!-- /settings -->'];

// Puts the table of settings, as the code knows them, between the markers of docs/settings.md. With --check it changes nothing and fails where
// another table stands there.
const page = readFileSync(PAGE, 'utf8');
const [start, end] = [page.indexOf(START), page.indexOf(END)];
if (start === -1 || end < start) fail(`${PAGE} lacks the markers ${START} and ${END}`);
const wanted = `${page.slice(0, start)}${START}\n\n${settingsMarkdown().trim()}\n\n${page.slice(end)}`;
if (process.argv[2] !== '--check') writeFileSync(PAGE, wanted);
else if (wanted !== page)
  fail(
    `the table of ${PAGE} is not what the code says; run scripts/generate and commit the result`,
  );

function fail(text: string): never {
  process.stderr.write(`${text}\n`);
  process.exit(1);
}
