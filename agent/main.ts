import { isMainThread } from './base/runtime';
import { guardProcess } from './cli/process-guard';

const exit = (code: number): never => process.exit(code);

if (isMainThread()) {
  guardProcess(exit);
  // Loaded after the guard stands: until then a signal could open the inspector.
  void import('./cli/start').then(async ({ start }) => exit(await start(exit)));
} else {
  void import('./cli/handshake-thread');
}
