// Adds up the results that jest wrote into a folder. The exit code is 1 where a test failed or none ran at all.
const { readdirSync, readFileSync } = require('node:fs');
const { join } = require('node:path');

const folder = process.argv[2];
const total = { passed: 0, failed: 0, skipped: 0 };
for (const file of readdirSync(folder).filter((name) => name.endsWith('.json'))) {
  const result = JSON.parse(readFileSync(join(folder, file), 'utf8'));
  total.passed += result.numPassedTests ?? 0;
  // A file that does not even load has no tests to count, yet it failed.
  total.failed += (result.numFailedTests ?? 0) + (result.numRuntimeErrorTestSuites ?? 0);
  // What another user may not do has run as root.
  const isCounted = file !== 'other-user.json';
  if (isCounted) total.skipped += (result.numPendingTests ?? 0) + (result.numTodoTests ?? 0);
  for (const suite of result.testResults ?? []) listTroubles(suite, isCounted);
}
if (total.passed + total.failed + total.skipped === 0) {
  process.stderr.write('no test file matches\n');
  total.failed = 1;
}
process.stdout.write(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`);
process.exitCode = total.failed === 0 ? 0 : 1;

/** Names what failed or was skipped once more at the end, where a reader looks first. */
function listTroubles(suite, isCounted) {
  for (const test of suite.assertionResults) {
    if (test.status === 'failed') process.stderr.write(`FAILED  ${test.fullName}\n`);
    if (isCounted && (test.status === 'pending' || test.status === 'todo'))
      process.stderr.write(`SKIPPED ${test.fullName}\n`);
  }
  if (suite.status === 'failed' && suite.assertionResults.length === 0)
    process.stderr.write(`FAILED  ${suite.name} does not load\n`);
}
