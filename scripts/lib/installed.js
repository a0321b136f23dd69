// Exit code 0 where node_modules holds exactly the versions that package-lock.json names. Runs on any Node.js from 12 on, before
// anything is installed.
const { readFileSync } = require('node:fs');

const read = (file) => JSON.parse(readFileSync(file, 'utf8')).packages;

function installed() {
  const wanted = read('package-lock.json');
  const present = read('node_modules/.package-lock.json');
  return Object.keys(wanted).every(
    (path) =>
      path === '' || wanted[path].optional || present[path]?.version === wanted[path].version,
  );
}

let complete = false;
try {
  complete = installed();
} catch {
  // Nothing is installed yet.
}
process.exit(complete ? 0 : 1);
