// `npm start`: runs missing setup steps, then the program in this process, so that signals reach it.
import { SetupFault, say, setUp } from './setup.mjs';

try {
  setUp();
} catch (error) {
  if (!(error instanceof SetupFault)) throw error;
  say(error.message);
  process.exit(1);
}
// npm changes to the repository; relative paths refer to the user's working directory.
if (process.env.npm_lifecycle_event === 'start' && process.env.INIT_CWD) process.chdir(process.env.INIT_CWD);
await import('../dist/cli/main.js');
