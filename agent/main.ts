import { guardProcess } from './cli/process-guard';

guardProcess();
// Loaded after the guard stands: until then a signal could open the inspector.
void import('./cli/start').then(({ start }) => start());
